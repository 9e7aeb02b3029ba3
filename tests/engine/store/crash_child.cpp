// Writes states as fast as it can and says so on stdout, until it is killed (crash_test.cpp).
//
//   crash_child DIRECTORY FIRST
//
// "+ NAME ROOT" once a state is acknowledged, "? NAME" before one is removed.
#include <cstdio>
#include <cstdlib>
#include <deque>

#include "tests/engine/store/fixture.h"

int main(int argc, char** argv) {
  using namespace kvfs;
  using namespace kvfs::store;
  if (argc != 3) return 2;
  auto opened = Store::open({.directory = argv[1], .map_bytes = std::uint64_t{1} << 32});
  if (!opened) {
    std::fprintf(stderr, "%s\n", opened.error().message().c_str());
    return 1;
  }
  Store& store = **opened;
  const TestModel model;
  std::setvbuf(stdout, nullptr, _IONBF, 0);
  std::deque<std::pair<std::string, StateId>> alive;
  for (unsigned i = static_cast<unsigned>(std::atoi(argv[2]));; ++i) {
    std::vector<BlockId> blocks;
    std::vector<BlockPin> pins;
    for (int b = 0; b < 3; ++b) {  // the first is shared by all
      auto pin = store.add_block(model.block(b == 0 ? 0 : i, b), DType::kBF16, chunk::CodecId::kZh);
      if (!pin) return 1;
      blocks.push_back(pin->id());
      pins.push_back(*std::move(pin));
    }
    const std::string name = "s" + std::to_string(i);
    std::string root;
    StateId state;
    const Status status = store.write([&](WriteTransaction& t) -> Status {
      KVFS_ASSIGN(const VersionId version, t.add_version(model.version(blocks)));
      KVFS_ASSIGN(const VersionRecord record, t.version(version));
      root = record.root.hex();
      KVFS_ASSIGN(state, t.create_state({.name = name, .version = version}));
      return {};
    });
    if (!status) return 1;
    std::printf("%s", ("+ " + name + " " + root + "\n").c_str());
    alive.emplace_back(name, state);
    if (alive.size() > 8) {
      std::printf("%s", ("? " + alive.front().first + "\n").c_str());
      if (!store.write([&](WriteTransaction& t) { return t.remove_state(alive.front().second); })) {
        return 1;
      }
      alive.pop_front();
    }
  }
}

// What the store's tests share: a directory of their own, blocks made from a seed, states of them.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/store/store.h"
#include "engine/store/write_transaction.h"

namespace kvfs::store {

class TempDirectory {
 public:
  TempDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "kvfs-store-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~TempDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// A model of these tests: its layers' shapes and what to make of a seed.
struct TestModel {
  std::vector<LayerShape> layers = std::vector<LayerShape>(3, {2, 16, 16});

  static Bytes tensor(std::size_t elements, std::mt19937& random) {
    ByteWriter out;  // bf16 around one, as real keys and values are: few exponents, any mantissa
    for (std::size_t i = 0; i < elements; ++i) {
      out.number(static_cast<std::uint16_t>(0x3f00 + (random() & 0x1ff)));
    }
    return out.take();
  }

  NewBlock block(unsigned seed, std::int32_t index, int tokens = kBlockTokens) const {
    std::mt19937 random(seed * 1000 + static_cast<unsigned>(index));
    NewBlock block{.index = index};
    std::vector<Position> positions;
    for (int i = 0; i < tokens; ++i) {
      const Position position = index * kBlockTokens + i;
      positions.push_back(position);
      block.tokens.push_back({.token = static_cast<TokenId>(random() % 50'000),
                              .position = position,
                              .path = i % 7 ? TokenPath::kRead : TokenPath::kGenerated});
      block.text += "w" + std::to_string(random() % 100) + " ";
    }
    for (std::uint16_t layer = 0; layer < layers.size(); ++layer) {
      const LayerShape& shape = layers[layer];
      const std::size_t skipped =
          positions.size() - std::min<std::size_t>(positions.size(), shape.kept);
      const std::vector<Position> kept(positions.begin() + static_cast<std::ptrdiff_t>(skipped),
                                       positions.end());
      const std::size_t rows = std::size_t{shape.kv_heads} * kept.size();
      block.pieces.push_back({.layer = layer,
                              .head_begin = 0,
                              .head_count = shape.kv_heads,
                              .positions = kept,
                              .key = tensor(rows * shape.key_width, random),
                              .value = tensor(rows * shape.value_width, random),
                              .kind = shape.kind});
    }
    return block;
  }

  VersionRecord version(std::vector<BlockId> blocks) const {
    VersionRecord version{.model = "test", .kernel_class = "cpu", .layers = layers};
    version.fingerprint.bytes.fill(7);
    version.next_pos = static_cast<Position>(blocks.size()) * kBlockTokens;
    version.blocks = std::move(blocks);
    return version;
  }
};

class StoreTest : public ::testing::Test {
 protected:
  void SetUp() override { reopen(); }

  void reopen(std::uint64_t map_bytes = std::uint64_t{1} << 30) {
    pins.clear();
    store.reset();
    auto opened = Store::open({.directory = directory.path(), .map_bytes = map_bytes});
    ASSERT_TRUE(opened) << opened.error().message();
    store = *std::move(opened);
  }

  // Pinned until the next state is there. From any thread.
  BlockId add(const NewBlock& block) {
    auto pin = store->add_block(block, DType::kBF16, codec);
    EXPECT_TRUE(pin) << pin.error().message();
    if (!pin) return {};
    const std::lock_guard lock(pins_mutex);
    pins.push_back(*std::move(pin));
    return pins.back().id();
  }

  // A state of `blocks` blocks made from the seed. From any thread.
  StateId add_state(const std::string& name, unsigned seed, int blocks, StateId parent = {}) {
    std::vector<BlockPin> made;
    std::vector<BlockId> ids;
    for (int i = 0; i < blocks; ++i) {
      auto pin = store->add_block(model.block(seed, i), DType::kBF16, chunk::CodecId::kZh);
      EXPECT_TRUE(pin) << pin.error().message();
      if (!pin) return {};
      ids.push_back(pin->id());
      made.push_back(*std::move(pin));
    }
    return name_blocks(name, ids, parent);
  }

  StateId add_state(const std::string& name, const std::vector<BlockId>& blocks,
                    StateId parent = {}) {
    const StateId id = name_blocks(name, blocks, parent);
    pins.clear();
    return id;
  }

  StateId name_blocks(const std::string& name, const std::vector<BlockId>& blocks, StateId parent) {
    StateId id;
    must([&](WriteTransaction& t) -> Status {
      KVFS_ASSIGN(const VersionId version, t.add_version(model.version(blocks)));
      KVFS_ASSIGN(id, t.create_state({.parent = parent, .name = name, .version = version}));
      return {};
    });
    return id;
  }

  StateId fork(StateId source, const std::string& name) {
    StateId id;
    const VersionId version = store->state(source)->version;
    must([&](WriteTransaction& t) -> Status {
      KVFS_ASSIGN(id, t.create_state({.parent = source, .name = name, .version = version}));
      return {};
    });
    return id;
  }

  void remove(StateId id) {
    must([&](WriteTransaction& t) { return t.remove_state(id); });
  }

  void must(const std::function<Status(WriteTransaction&)>& body) {
    const Status status = store->write(body);
    EXPECT_TRUE(status) << status.error().message();
  }

  ErrorCode code_of(const std::function<Status(WriteTransaction&)>& body) {
    const Status status = store->write(body);
    EXPECT_FALSE(status);
    return status ? ErrorCode::kInternal : status.error().code;
  }

  VersionRecord version_of(StateId state) { return *store->version(store->state(state)->version); }

  void expect_sound() {
    const auto report = store->verify();
    ASSERT_TRUE(report) << report.error().message();
    for (const std::string& problem : report->problems) ADD_FAILURE() << problem;
  }

  TempDirectory directory;
  TestModel model;
  chunk::CodecId codec = chunk::CodecId::kZh;
  std::unique_ptr<Store> store;
  std::mutex pins_mutex;
  std::vector<BlockPin> pins;
};

}  // namespace kvfs::store

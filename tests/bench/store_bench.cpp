// What the store costs, on blocks of SmolLM2-135M's shape (30 layers of 3 heads of 64, bf16: 5.9
// MB).
//
//   bench_store [--benchmark_filter=…]     the store lies under $TMPDIR, or /tmp
#include <benchmark/benchmark.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <random>

#include "engine/store/store.h"
#include "engine/store/write_transaction.h"

namespace kvfs::store {
namespace {

constexpr int kLayers = 30;

// bf16 of normally distributed numbers: about as many bits of exponent as real keys have.
Bytes tensor(std::size_t elements, std::mt19937& random) {
  std::normal_distribution<float> normal;
  ByteWriter out;
  for (std::size_t i = 0; i < elements; ++i) {
    out.number(static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(normal(random)) >> 16));
  }
  return out.take();
}

NewBlock make_block(unsigned seed) {
  std::mt19937 random(seed);
  NewBlock block;
  std::vector<Position> positions;
  for (Position i = 0; i < kBlockTokens; ++i) {
    positions.push_back(i);
    block.tokens.push_back({.token = static_cast<TokenId>(random() % 49'152), .position = i});
  }
  const std::size_t elements = 3 * kBlockTokens * 64;
  for (std::uint16_t layer = 0; layer < kLayers; ++layer) {
    block.pieces.push_back({.layer = layer,
                            .head_count = 3,
                            .positions = positions,
                            .key = tensor(elements, random),
                            .value = tensor(elements, random)});
  }
  return block;
}

std::size_t bytes_of(const NewBlock& block) {
  std::size_t bytes = 0;
  for (const KvPiece& piece : block.pieces) bytes += piece.key.size() + piece.value.size();
  return bytes;
}

class StoreBench : public benchmark::Fixture {
 public:
  void SetUp(benchmark::State&) override {
    path_ = std::filesystem::temp_directory_path() / ("kvfs-bench-" + std::to_string(getpid()));
    store = Store::open({.directory = path_}).value();
    block = make_block(1);
  }
  void TearDown(benchmark::State&) override {
    store.reset();
    std::filesystem::remove_all(path_);
  }
  // Another content of the same kind, cheaply made: no chunk of it is known.
  void vary() {
    ++round_;
    for (KvPiece& piece : block.pieces) {
      for (Bytes* bytes : {&piece.key, &piece.value}) {
        std::memcpy(bytes->data(), &round_, sizeof round_);
      }
    }
  }
  BlockPin add() { return store->add_block(block, DType::kBF16, chunk::CodecId::kZh).value(); }

  std::unique_ptr<Store> store;
  NewBlock block;

 private:
  std::filesystem::path path_;
  std::uint64_t round_ = 0;
};

// A block with its version and state: acknowledged when it is on disk.
BENCHMARK_DEFINE_F(StoreBench, Commit)(benchmark::State& state) {
  VersionRecord version{.model = "bench", .layers = std::vector<LayerShape>(kLayers, {3, 64, 64})};
  StateId id;
  (void)store->write([&](WriteTransaction& t) -> Status {
    KVFS_ASSIGN(id, t.create_state({.name = "s"}));
    return {};
  });
  for (auto _ : state) {
    state.PauseTiming();
    vary();
    state.ResumeTiming();
    const BlockPin pin = add();
    version.blocks = {pin.id()};
    const Status status = store->write([&](WriteTransaction& t) -> Status {
      KVFS_ASSIGN(const VersionId next, t.add_version(version));
      return t.set_version(id, next);
    });
    if (!status) state.SkipWithError(status.error().message().c_str());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(bytes_of(block)));
}
BENCHMARK_REGISTER_F(StoreBench, Commit)
    ->UseRealTime()
    ->MeasureProcessCPUTime()
    ->Unit(benchmark::kMillisecond);

BENCHMARK_DEFINE_F(StoreBench, Restore)(benchmark::State& state) {
  const BlockPin kept = add();
  const BlockRecord record = store->block(kept.id()).value();
  for (auto _ : state) {
    for (const Segment& segment : record.segments) {
      benchmark::DoNotOptimize(store->read_segment(segment).value());
    }
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(bytes_of(block)));
}
BENCHMARK_REGISTER_F(StoreBench, Restore)
    ->UseRealTime()
    ->MeasureProcessCPUTime()
    ->Unit(benchmark::kMillisecond);

BENCHMARK_DEFINE_F(StoreBench, AddAKnownBlock)(benchmark::State& state) {
  const BlockPin kept = add();
  for (auto _ : state) benchmark::DoNotOptimize(add());
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(bytes_of(block)));
}
BENCHMARK_REGISTER_F(StoreBench, AddAKnownBlock)
    ->UseRealTime()
    ->MeasureProcessCPUTime()
    ->Unit(benchmark::kMillisecond);

// What a small write costs when one, or many at once, wait for the disk.
BENCHMARK_DEFINE_F(StoreBench, SmallWrites)(benchmark::State& state) {
  int n = 0;
  for (auto _ : state) {
    std::atomic<int> left = static_cast<int>(state.range(0));
    for (int i = 0; i < state.range(0); ++i) {
      store->write_async(
          [name = "s" + std::to_string(n++)](WriteTransaction& t) -> Status {
            KVFS_TRY(t.create_state({.name = name}));
            return {};
          },
          [&](Status) {
            if (--left == 0) left.notify_one();
          });
    }
    for (int now; (now = left) != 0;) left.wait(now);
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK_REGISTER_F(StoreBench, SmallWrites)
    ->Arg(1)
    ->Arg(64)
    ->UseRealTime()
    ->MeasureProcessCPUTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace kvfs::store

BENCHMARK_MAIN();

// What the chunk codecs cost and save: GB/s of decoded bytes on one core, and the ratio.
//
//   bench_codec [raw bf16 file] [Google Benchmark's flags]
//
// The synthetic KV is Gaussian with a scale of its own for each channel. A file is read as chunks
// of [3, 256, 64] bf16, the shape of SmolLM2-135M's keys and values of one block.

#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

#include "codec/chunk/codec.h"

namespace {

using kvfs::Bytes;
using kvfs::ByteSpan;
using kvfs::DType;
using kvfs::chunk::CodecId;
using kvfs::chunk::Encoded;
using kvfs::chunk::ShapeClass;

struct Data {
  ShapeClass shape;
  Bytes bytes;  // chunks back to back

  std::size_t chunks() const { return bytes.size() / shape.byte_size(); }
  ByteSpan chunk(std::size_t index) const {
    return ByteSpan(bytes).subspan(index * shape.byte_size(), shape.byte_size());
  }
};

void put(DType dtype, float value, std::uint8_t* out) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  if (dtype == DType::kF32) {
    std::memcpy(out, &bits, sizeof bits);
    return;
  }
  auto half = static_cast<std::uint16_t>(bits >> 16);
  if (dtype == DType::kF16) {
    const auto rounded = static_cast<_Float16>(value);
    std::memcpy(&half, &rounded, sizeof half);
  }
  std::memcpy(out, &half, sizeof half);
}

Data synthetic(DType dtype) {
  constexpr std::size_t kChunks = 64;
  Data data{{dtype, 3, 256, 64}, {}};
  data.bytes.resize(kChunks * data.shape.byte_size());
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  const std::size_t rows = std::size_t{data.shape.heads} * kChunks;
  std::uint8_t* out = data.bytes.data();
  std::vector<float> scales(data.shape.width);
  for (std::size_t head = 0; head < rows; ++head) {
    for (float& scale : scales) scale = std::exp(normal(random));
    for (std::uint32_t p = 0; p < data.shape.positions; ++p) {
      for (const float scale : scales) {
        put(dtype, scale * normal(random), out);
        out += size_of(dtype);
      }
    }
  }
  return data;
}

Data from_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  Data data{{DType::kBF16, 3, 256, 64}, {}};
  data.bytes.assign(std::istreambuf_iterator<char>(file), {});
  data.bytes.resize(data.chunks() * data.shape.byte_size());
  return data;
}

void report(benchmark::State& state, const Data& data, double ratio) {
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(data.shape.byte_size()));
  state.counters["ratio"] = ratio;
}

void encode(benchmark::State& state, const Data& data, CodecId codec) {
  std::size_t index = 0;
  double coded = 0;
  for (auto _ : state) {
    Encoded out = kvfs::chunk::encode(codec, data.shape, data.chunk(index++ % data.chunks()));
    coded += static_cast<double>(out.bytes.size());
    benchmark::DoNotOptimize(out.bytes.data());
  }
  report(state, data,
         static_cast<double>(data.shape.byte_size()) * static_cast<double>(index) / coded);
}

void decode(benchmark::State& state, const Data& data, CodecId codec) {
  std::vector<Encoded> stored;
  double coded = 0;
  for (std::size_t i = 0; i < data.chunks(); ++i) {
    stored.push_back(kvfs::chunk::encode(codec, data.shape, data.chunk(i)));
    coded += static_cast<double>(stored.back().bytes.size());
  }
  Bytes out(data.shape.byte_size());
  std::size_t index = 0;
  for (auto _ : state) {
    const Encoded& chunk = stored[index++ % stored.size()];
    if (!kvfs::chunk::decode(chunk.codec, data.shape, chunk.bytes, out)) {
      state.SkipWithError("decoding failed");
    }
    benchmark::DoNotOptimize(out.data());
  }
  report(state, data, static_cast<double>(data.bytes.size()) / coded);
}

void add(const std::string& name, const Data& data) {
  for (const CodecId codec : {CodecId::kRaw, CodecId::kZh}) {
    const std::string prefix = name + "/" + std::string(kvfs::chunk::name_of(codec));
    benchmark::RegisterBenchmark((prefix + "/encode").c_str(), encode, data, codec);
    benchmark::RegisterBenchmark((prefix + "/decode").c_str(), decode, data, codec);
  }
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
    add("synthetic_" + std::string(name_of(dtype)), synthetic(dtype));
  }
  for (int i = 1; i < argc; ++i) {
    const Data data = from_file(argv[i]);
    if (data.chunks() == 0) {
      std::fprintf(stderr, "%s: no file of at least one chunk of %zu bytes\n", argv[i],
                   data.shape.byte_size());
      return 2;
    }
    add(std::filesystem::path(argv[i]).filename().string(), data);
  }
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

// The generated path's kernels on random weights in published shapes: each by itself, as a share
// of the bound that the bytes it must read set, then whole steps.
//
//   bench_cuda_decode [135m|1b|8b][-int4|-int4min|-int8]... [context] [rows]
//
// A kernel is timed in recorded runs over all layers, so that its weights come from memory and its
// neighbours overlap as in a step. The bound is this device's copy rate, measured in this run. One
// row: 1 to 16 branches of one context.
#include <cuda_profiler_api.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/model/cuda/decode_packed.h"
#include "engine/model/cuda/decode_step.h"

namespace kvfs::model::cuda {
namespace {

using bf16 = __nv_bfloat16;

constexpr int kPage = 256;

void must(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

LlamaSizes shape_of(const std::string& name) {
  if (name == "135m") return {30, 576, 9, 3, 64, 1536, 49152, 1 << 17, 1e-5F};
  if (name == "1b") return {16, 2048, 32, 8, 64, 8192, 128256, 1 << 17, 1e-5F};
  if (name == "8b") return {32, 4096, 32, 8, 128, 14336, 128256, 1 << 17, 1e-5F};
  throw std::runtime_error(name + " is no shape: 135m, 1b or 8b");
}

WeightKind kind_of(const std::string& name) {
  if (name.ends_with("-int4")) return WeightKind::kInt4;
  if (name.ends_with("-int4min")) return WeightKind::kInt4Min;
  return name.ends_with("-int8") ? WeightKind::kInt8 : WeightKind::kBf16;
}

// Device memory of a run, given back at its end.
class Memory {
 public:
  Memory() {
    std::mt19937 random(1);
    std::normal_distribution<float> draw(0.0F, 0.02F);
    std::vector<bf16> block(1 << 20);
    for (bf16& each : block) each = __float2bfloat16(draw(random));
    noise_ = bytes(block.size() * sizeof(bf16));
    must(cudaMemcpy(noise_, block.data(), block.size() * sizeof(bf16), cudaMemcpyHostToDevice));
  }
  ~Memory() {
    for (void* each : all_) cudaFree(each);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  void* bytes(std::size_t count) {
    void* out = nullptr;
    must(cudaMalloc(&out, count));
    all_.push_back(out);
    must(cudaMemset(out, 0, count));
    return out;
  }
  template <class T>
  T* zeros(std::size_t count) {
    return static_cast<T*>(bytes(count * sizeof(T)));
  }
  template <class T>
  T* copy(const std::vector<T>& from) {
    T* out = zeros<T>(from.size());
    must(cudaMemcpy(out, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice));
    return out;
  }
  bf16* noise(std::size_t count) {
    bf16* out = zeros<bf16>(count);
    constexpr std::size_t kBlock = 1 << 20;
    for (std::size_t at = 0; at < count; at += kBlock) {
      must(cudaMemcpyAsync(out + at, noise_, std::min(kBlock, count - at) * sizeof(bf16),
                           cudaMemcpyDeviceToDevice));
    }
    return out;
  }
  // Packed: whatever numbers and scales the noise's bits are; no fp16 of it is infinite.
  Matrix matrix(WeightKind kind, int outputs, int inputs, bool paired = false) {
    if (kind != WeightKind::kBf16) {
      return {noise(packed_bytes(kind, outputs, inputs) / sizeof(bf16)), outputs, inputs, kind,
              paired};
    }
    const auto count = static_cast<std::size_t>(outputs) * static_cast<std::size_t>(inputs);
    return {noise(count), outputs, inputs};
  }

 private:
  std::vector<void*> all_;
  void* noise_ = nullptr;
};

DecodeWeights random_weights(const LlamaSizes& s, WeightKind kind, Memory& memory) {
  const auto ones = [&](int count) {
    return memory.copy(std::vector<float>(static_cast<std::size_t>(count), 1.0F));
  };
  std::vector<float> frequencies;
  for (int i = 0; i < s.head_width / 2; ++i) {
    frequencies.push_back(1.0F / static_cast<float>(1 << (i % 20)));
  }
  DecodeWeights out{
      s, nullptr, ones(s.width), memory.copy(frequencies), memory.matrix(kind, s.vocab, s.width),
      {}};
  out.embedding =
      memory.noise(static_cast<std::size_t>(s.vocab) * static_cast<std::size_t>(s.width));
  const int heads = s.heads * s.head_width;
  for (int i = 0; i < s.layers; ++i) {
    out.layers.push_back({ones(s.width),
                          memory.matrix(kind, heads + 2 * s.kv_heads * s.head_width, s.width),
                          memory.matrix(kind, s.width, heads), ones(s.width),
                          memory.matrix(kind, 2 * s.ffn_width, s.width, kind != WeightKind::kBf16),
                          memory.matrix(kind, s.width, s.ffn_width)});
  }
  return out;
}

struct Run {
  DecodeWeights weights;
  DecodeBuffers buffers;
  StepRows step;
  DecodeHistory history;
};

// Branches of one context of full pages, each with a page of its own at the end.
Run random_run(const LlamaSizes& s, WeightKind kind, int context, int rows, Memory& memory) {
  Run run{random_weights(s, kind, memory), {}, {}, {}};
  constexpr std::size_t kRows = kMaxBatch;
  const auto width = static_cast<std::size_t>(s.width);
  const auto heads = static_cast<std::size_t>(s.heads * s.head_width);
  const auto qkv = static_cast<std::size_t>((s.heads + 2 * s.kv_heads) * s.head_width);
  run.buffers = {memory.zeros<float>(kRows * width),
                 {memory.zeros<bf16>(kRows * width), memory.zeros<float>(kRows * width)},
                 memory.zeros<float>(kRows * qkv),
                 memory.zeros<float2>(kRows * static_cast<std::size_t>(s.head_width)),
                 memory.zeros<bf16>(kRows * heads),
                 memory.zeros<bf16>(kRows * static_cast<std::size_t>(s.ffn_width)),
                 memory.zeros<float>(kRows * static_cast<std::size_t>(s.vocab)),
                 {memory.zeros<std::uint8_t>(fixed_piece_bytes(s.ffn_width)),
                  memory.zeros<float>(fixed_scale_floats(s.ffn_width))}};
  const int shared = context / kPage;
  const std::size_t page = static_cast<std::size_t>(s.layers) * 2 *
                           static_cast<std::size_t>(s.kv_heads * kPage * s.head_width);
  std::vector<void*> common;
  for (int i = 0; i < shared; ++i) common.push_back(memory.noise(page));
  std::vector<void*> table;
  std::vector<RowPlace> places;
  std::vector<PageWork> work;
  for (int i = 0; i < shared; ++i) work.push_back({i, (1U << rows) - 1U});
  for (int r = 0; r < rows; ++r) {
    places.push_back({context, static_cast<std::int32_t>(table.size())});
    table.insert(table.end(), common.begin(), common.end());
    table.push_back(memory.noise(page));
    work.push_back({shared, 1U << r});
  }
  run.step = {memory.copy(places),
              memory.copy(std::vector<std::int32_t>(static_cast<std::size_t>(rows), 17)), rows};
  const int pages = context / kPageTokens + 1;
  const auto slots = static_cast<std::size_t>(rows * s.heads * pages);
  run.history = {memory.copy(table),
                 memory.copy(work),
                 rows > 1 ? WorkRoom{shared, rows} : WorkRoom{0, shared + 1},
                 {memory.zeros<float>(slots * static_cast<std::size_t>(s.head_width)),
                  memory.zeros<float2>(slots), pages}};
  return run;
}

double median_seconds(cudaStream_t stream, const std::function<void()>& once) {
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  must(cudaEventCreate(&begin));
  must(cudaEventCreate(&end));
  std::vector<float> all;
  for (int i = 0; i < 30; ++i) {
    must(cudaEventRecord(begin, stream));
    once();
    must(cudaEventRecord(end, stream));
    must(cudaEventSynchronize(end));
    float ms = 0.0F;
    must(cudaEventElapsedTime(&ms, begin, end));
    if (i >= 10) all.push_back(ms);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  std::sort(all.begin(), all.end());
  return 1e-3 * static_cast<double>(all[all.size() / 2]);
}

// Of a recording of `launches`.
double seconds(cudaStream_t stream, const std::function<void()>& launches) {
  launches();
  must(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  launches();
  cudaGraph_t graph = nullptr;
  must(cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t replay = nullptr;
  must(cudaGraphInstantiate(&replay, graph, 0));
  const double out = median_seconds(stream, [&] { must(cudaGraphLaunch(replay, stream)); });
  cudaGraphExecDestroy(replay);
  cudaGraphDestroy(graph);
  return out;
}

double copy_rate(cudaStream_t stream) {
  Memory memory;
  constexpr std::size_t kBytes = std::size_t{2} << 30;
  void* from = memory.bytes(kBytes);
  void* to = memory.bytes(kBytes);
  return 2.0 * static_cast<double>(kBytes) / median_seconds(stream, [&] {
           must(cudaMemcpyAsync(to, from, kBytes, cudaMemcpyDeviceToDevice, stream));
         });
}

double bytes_of(const Matrix& m) {
  if (m.kind != WeightKind::kBf16) {
    return static_cast<double>(packed_bytes(m.kind, m.outputs, m.inputs));
  }
  return 2.0 * static_cast<double>(m.outputs) * static_cast<double>(m.inputs);
}

void measure(const std::string& name, int context, int rows, double copy, cudaStream_t stream) {
  const LlamaSizes s = shape_of(name.substr(0, name.find('-')));
  Memory memory;
  const Run run = random_run(s, kind_of(name), context, rows, memory);
  must(cudaDeviceSynchronize());
  const DecodeLayer& layer = run.weights.layers.front();
  const int pages_read = context / kPage;
  const double kv = 4.0 * s.kv_heads * s.head_width * (pages_read * kPage + rows);
  struct Part {
    const char* name;
    StepPart part;
    double bytes;  // a launch
    int times;     // a step
  };
  const Part parts[] = {
      {"q, k, v", StepPart::kQkv, bytes_of(layer.qkv), s.layers},
      {"attention", StepPart::kAttend, kv, s.layers},
      {"out", StepPart::kOut, bytes_of(layer.out), s.layers},
      {"gate, up", StepPart::kGate, bytes_of(layer.gate_up), s.layers},
      {"down", StepPart::kDown, bytes_of(layer.down), s.layers},
      {"logits", StepPart::kLogits, bytes_of(run.weights.output), 1},
  };
  std::printf("%s, %d tokens of context, %d rows\n", name.c_str(), context, rows);
  std::printf("%-10s %9s %9s %7s %6s\n", "kernel", "us", "bound us", "share", "times");
  double bytes = 0.0;
  double sum = 0.0;
  for (const Part& part : parts) {
    const int launches = s.layers;
    const double each = seconds(stream,
                                [&] {
                                  for (int i = 0; i < launches; ++i) {
                                    must(launch_part(part.part, i % s.layers, run.weights,
                                                     run.buffers, run.step, run.history, stream));
                                  }
                                }) /
                        launches;
    bytes += part.bytes * part.times;
    sum += each * part.times;
    std::printf("%-10s %9.2f %9.2f %6.1f%% %6d\n", part.name, 1e6 * each, 1e6 * part.bytes / copy,
                100.0 * part.bytes / copy / each, part.times);
  }
  const double step = seconds(
      stream, [&] { must(launch_step(run.weights, run.buffers, run.step, run.history, stream)); });
  std::printf("step %.1f us (kernels one by one %.1f), bound %.1f us: %.1f%%, %.0f tok/s\n\n",
              1e6 * step, 1e6 * sum, 1e6 * bytes / copy, 100.0 * bytes / copy / step, rows / step);
  // For `ncu --profile-from-start off`: one step, launch by launch.
  must(cudaProfilerStart());
  must(launch_step(run.weights, run.buffers, run.step, run.history, stream));
  must(cudaDeviceSynchronize());
  must(cudaProfilerStop());
}

void run(int argc, char** argv) {
  std::vector<std::string> shapes;
  std::vector<int> numbers;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word.find_first_not_of("0123456789") == std::string::npos) {
      numbers.push_back(std::atoi(word.c_str()));
    } else {
      shapes.push_back(word);
    }
  }
  if (shapes.empty()) shapes = {"135m", "1b", "8b"};
  const int rows = numbers.size() > 1 ? std::clamp(numbers[1], 1, kMaxBatch) : 1;
  cudaStream_t stream = nullptr;
  must(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  const double copy = copy_rate(stream);
  std::printf("device copy %.0f GB/s\n", copy / 1e9);
  for (const std::string& shape : shapes) {
    const int context = !numbers.empty() ? numbers[0] : shape.starts_with("135m") ? 4096 : 8192;
    measure(shape, context / kPage * kPage, rows, copy, stream);
  }
}

}  // namespace
}  // namespace kvfs::model::cuda

int main(int argc, char** argv) {
  try {
    kvfs::model::cuda::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_cuda_decode: %s\n", error.what());
    return 1;
  }
  return 0;
}

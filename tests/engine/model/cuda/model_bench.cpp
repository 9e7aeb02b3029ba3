// Speed of a model on a GPU, beside what the memory allows: prefill of a context of 2,048 tokens;
// decode at 0 and at its end, one sequence and sixteen forks; one that draws for itself, with the
// longest that its reader waited for a token, also while the context's KV leaves; the context's KV
// from memory of the host back to the device, as it is and as zh.
//
//   bench_cuda_model [MODEL.gguf | (135m | 1b | 8b)[-int4 | -int4min | -int8 | -fp16]]
//   [fast|reference|both] [context]
//
// 135m, 1b, 8b: random weights in the shapes of SmolLM2-135M, Llama-3.2-1B and Llama-3.1-8B. One
// JSON object a line. A generated token must at least read every weight and the history's KV once:
// bound_tok_s is the device's own copy rate, measured in this run, over those bytes.
#include <cuda_runtime.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "engine/model/cuda/cuda_model.h"
#include "engine/model/model.h"
#include "tests/engine/model/cuda/stored.h"

namespace {

using kvfs::TokenId;
using kvfs::model::Compute;
using kvfs::model::Model;
using kvfs::model::Sequence;
using Clock = std::chrono::steady_clock;

constexpr int kRepeats = 7;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Bytes a second, read and written, of a copy far larger than the cache.
kvfs::Result<double> copy_rate() {
  constexpr std::size_t kBytes = std::size_t{2} << 30;
  void* from = nullptr;
  void* to = nullptr;
  cudaEvent_t begin{};
  cudaEvent_t end{};
  cudaError_t error = cudaMalloc(&from, kBytes);
  if (error == cudaSuccess) error = cudaMalloc(&to, kBytes);
  if (error == cudaSuccess) error = cudaMemset(from, 0x5a, kBytes);
  if (error == cudaSuccess) error = cudaEventCreate(&begin);
  if (error == cudaSuccess) error = cudaEventCreate(&end);
  std::vector<double> rates;
  for (int i = 0; i < kRepeats && error == cudaSuccess; ++i) {
    cudaEventRecord(begin);
    error = cudaMemcpyAsync(to, from, kBytes, cudaMemcpyDeviceToDevice);
    cudaEventRecord(end);
    if (error == cudaSuccess) error = cudaEventSynchronize(end);
    float ms = 0.0F;
    cudaEventElapsedTime(&ms, begin, end);
    rates.push_back(2.0 * static_cast<double>(kBytes) / (static_cast<double>(ms) * 1e-3));
  }
  cudaFree(from);
  cudaFree(to);
  if (error != cudaSuccess) {
    return kvfs::fail(kvfs::ErrorCode::kIo, "measure the device's copy rate",
                      cudaGetErrorString(error));
  }
  return median(rates);
}

std::vector<TokenId> some_tokens(std::size_t count, std::int32_t vocab) {
  std::vector<TokenId> tokens(count);
  std::uint32_t state = 1;
  for (TokenId& token : tokens) {
    state = state * 1664525U + 1013904223U;
    token = static_cast<TokenId>((state >> 8) % static_cast<std::uint32_t>(vocab));
  }
  return tokens;
}

// Tokens a second of all `batch` forks of a start together.
kvfs::Result<double> decode_rate(Model& model, const Sequence& start, int batch, int steps) {
  const auto vocab = static_cast<std::size_t>(model.info().vocab_size);
  std::vector<float> logits(vocab * static_cast<std::size_t>(batch));
  std::vector<std::unique_ptr<Sequence>> forks;
  for (int i = 0; i < batch; ++i) forks.push_back(model.fork(start));
  std::vector<double> seconds;
  for (int step = 0; step < steps; ++step) {
    std::vector<kvfs::model::DecodeItem> items;
    for (std::size_t i = 0; i < forks.size(); ++i) {
      items.push_back({forks[i].get(), static_cast<TokenId>(100 + step),
                       std::span(logits).subspan(i * vocab, vocab)});
    }
    const auto begin = Clock::now();
    KVFS_TRY(model.decode(items));
    seconds.push_back(seconds_since(begin));
  }
  return batch / median(seconds);
}

struct Ahead {
  double rate = 0.0;        // tokens a second of one fork that draws for itself, as jobs have it
  double gap = 0.0;         // seconds: the longest that its reader waited for a token, and …
  double saving_gap = 0.0;  // … while all of the start's blocks left the device, eight at a time
};

kvfs::Result<Ahead> ahead_rate(Model& model, const Sequence& start, int steps) {
  const kvfs::model::SamplingParams greedy{.temperature = 0};
  const auto sequence = model.fork(start);
  const int blocks = start.next_pos() / kvfs::kBlockTokens;
  std::atomic<bool> saves = false, saved = false;
  std::vector<std::unique_ptr<kvfs::model::KvOut>> leaving(static_cast<std::size_t>(blocks));
  std::atomic<std::size_t> sent = 0, taken = 0;
  std::jthread saver;
  Ahead out;
  const auto first = Clock::now();
  auto heard = first;
  int counted = 0;
  leaving.resize(static_cast<std::size_t>(blocks));
  for (int under_way = 0; counted < steps || (saves && !saved);) {
    for (; under_way < model.most_ahead(); ++under_way) {
      kvfs::model::AheadItem item{.sequence = sequence.get(), .sampling = &greedy};
      if (counted + under_way == 0) item.token = 100;
      KVFS_TRY(model.launch({&item, 1}));
    }
    KVFS_TRY(model.hear());
    --under_way;
    const double gap = seconds_since(heard);
    heard = Clock::now();
    double& longest = saves ? out.saving_gap : out.gap;
    if (++counted > 8) longest = std::max(longest, gap);
    if (counted == 8) out.rate = seconds_since(first);
    if (counted == steps) {
      out.rate = (steps - 8) / (seconds_since(first) - out.rate);
      saves = blocks > 0;
      saver = std::jthread([&] {
        for (; taken < leaving.size(); ++taken) {
          while (sent <= taken) std::this_thread::yield();
          if (!leaving[taken]->take()) std::abort();
        }
        saved = true;
      });
    }
    while (saves && sent < leaving.size() && sent < taken + 8) {
      KVFS_ASSIGN(leaving[sent], model.kv_on_its_way(start, static_cast<int>(sent)));
      ++sent;
    }
  }
  for (int left = model.most_ahead() - 1; left > 0; --left) KVFS_TRY(model.hear());
  return out;
}

std::uint64_t kv_bytes_per_token(const kvfs::model::ModelInfo& info) {
  std::uint64_t elements = 0;
  for (const auto& layer : info.layers) {
    elements += static_cast<std::uint64_t>(layer.kv_heads) * (layer.key_width + layer.value_width);
  }
  return elements * kvfs::size_of(info.kv_dtype);
}

using kvfs::model::cuda::WeightKind;

struct Shape {
  kvfs::model::cuda::LlamaSizes sizes;
  bool tied;
};
std::optional<Shape> shape_of(const std::string& path) {
  constexpr int kTokens = 1 << 17;
  const std::string name = path.substr(0, path.find('-'));
  if (name == "135m") return Shape{{30, 576, 9, 3, 64, 1536, 49152, kTokens, 1e-5F}, true};
  if (name == "1b") return Shape{{16, 2048, 32, 8, 64, 8192, 128256, kTokens, 1e-5F}, true};
  if (name == "8b") return Shape{{32, 4096, 32, 8, 128, 14336, 128256, kTokens, 1e-5F}, false};
  return std::nullopt;
}

WeightKind kind_of(const std::string& path) {
  if (path.ends_with("-int4")) return WeightKind::kInt4;
  if (path.ends_with("-int4min")) return WeightKind::kInt4Min;
  if (path.ends_with("-fp16")) return WeightKind::kF16;
  return path.ends_with("-int8") ? WeightKind::kInt8 : WeightKind::kBf16;
}

kvfs::Result<std::unique_ptr<Model>> open(const std::string& path, Compute compute) {
  if (const auto shape = shape_of(path)) {
    return kvfs::model::cuda::make_random_cuda_model(path, shape->sizes, shape->tied, compute,
                                                     kind_of(path), 0);
  }
  const kvfs::model::DeviceChoice gpu{.kind = kvfs::model::DeviceChoice::Kind::kCuda};
  KVFS_ASSIGN(const auto card, kvfs::model::read_card(path, compute, gpu, {}));
  return kvfs::model::load_model(*card, {.device = gpu, .compute = compute});
}

// Of one generated token: the matrices, and the embedding's table where it is the output's too. Of
// a file, as if all were of the activations' type.
double weight_bytes(const kvfs::model::ModelInfo& info, const std::string& path) {
  const WeightKind kind = kind_of(path);
  double parameters = static_cast<double>(info.parameters);
  if (const auto shape = shape_of(path); shape && !shape->tied) {
    parameters -= static_cast<double>(shape->sizes.vocab) * shape->sizes.width;
  }
  const double bits = kind == WeightKind::kInt4      ? 4.5
                      : kind == WeightKind::kInt4Min ? 5.0
                      : kind == WeightKind::kInt8
                          ? 8.5
                          : 8.0 * static_cast<double>(kvfs::size_of(info.kv_dtype));
  return parameters * bits / 8.0;
}

// Bytes a second from pinned memory to the device.
kvfs::Result<double> pinned_rate() {
  constexpr std::size_t kBytes = std::size_t{1} << 30;
  void* from = nullptr;
  void* to = nullptr;
  cudaError_t error = cudaMallocHost(&from, kBytes);
  if (error == cudaSuccess) error = cudaMalloc(&to, kBytes);
  std::vector<double> rates;
  for (int i = 0; i < kRepeats && error == cudaSuccess; ++i) {
    const auto begin = Clock::now();
    error = cudaMemcpy(to, from, kBytes, cudaMemcpyHostToDevice);
    rates.push_back(static_cast<double>(kBytes) / seconds_since(begin));
  }
  cudaFreeHost(from);
  cudaFree(to);
  if (error != cudaSuccess) {
    return kvfs::fail(kvfs::ErrorCode::kIo, "measure the pinned rate", cudaGetErrorString(error));
  }
  return median(rates);
}

struct Restored {
  double seconds = 0.0;    // until its KV is on the device
  double question = 0.0;   // and then, until a question's first logits
  double bytes = 0.0;      // of KV
  double from_host = 0.0;  // bytes that are in the host's memory
};

// A state's KV from memory of the host, put in by twelve threads as the scheduler does, encoded as
// the store keeps it, and a question of 20 tokens to it.
kvfs::Result<Restored> restore(Model& model, const Sequence& state, kvfs::chunk::CodecId codec) {
  std::vector<kvfs::chunk::StoredPiece> pieces;
  Restored out;
  for (std::uint16_t layer = 0; layer < model.info().layers.size(); ++layer) {
    for (int block = 0; block * kvfs::kBlockTokens < state.next_pos(); ++block) {
      KVFS_ASSIGN(auto some, model.kv_out(state, layer, block));
      for (const auto& piece : some) {
        pieces.push_back(kvfs::model::cuda::stored(piece, model.info().kv_dtype, codec));
        out.bytes += static_cast<double>(piece.key.size() + piece.value.size());
        out.from_host += static_cast<double>(pieces.back().bytes.size());
      }
    }
  }
  const auto question = some_tokens(20, model.info().vocab_size);
  std::vector<float> logits(static_cast<std::size_t>(model.info().vocab_size));
  std::vector<double> restores;
  std::vector<double> questions;
  for (int i = 0; i < kRepeats; ++i) {
    const auto sequence = model.new_sequence();
    const auto begin = Clock::now();
    KVFS_TRY(model.kv_room(*sequence, state.next_pos()));
    std::atomic<std::size_t> next = 0;
    std::atomic<bool> failed = false;
    {
      std::vector<std::jthread> threads;
      for (int t = 0; t < 12; ++t) {
        threads.emplace_back([&] {
          for (std::size_t mine = next++; mine < pieces.size(); mine = next++) {
            if (!model.stored_in(*sequence, pieces[mine])) failed = true;
          }
        });
      }
    }
    if (failed) return kvfs::fail(kvfs::ErrorCode::kIo, "put KV in", "a piece failed");
    KVFS_TRY(model.set_next_pos(*sequence, state.next_pos()));
    restores.push_back(seconds_since(begin));
    const auto asked = Clock::now();
    KVFS_TRY(model.prefill(*sequence, question, logits));
    questions.push_back(seconds_since(asked));
  }
  out.seconds = median(restores);
  out.question = median(questions);
  return out;
}

kvfs::Status run(const std::string& path, Compute compute, int tokens_of_context, double copy) {
  const auto start = Clock::now();
  KVFS_ASSIGN(const auto model, open(path, compute));
  const double load = seconds_since(start);
  const auto& info = model->info();
  const auto tokens = some_tokens(static_cast<std::size_t>(tokens_of_context), info.vocab_size);
  std::vector<float> logits(static_cast<std::size_t>(info.vocab_size));

  std::vector<double> prefills;
  std::unique_ptr<Sequence> context;
  for (int i = 0; i <= kRepeats; ++i) {
    context = model->new_sequence();
    const auto begin = Clock::now();
    KVFS_TRY(model->prefill(*context, tokens, logits));
    if (i > 0) prefills.push_back(tokens_of_context / seconds_since(begin));  // the first warms up
  }
  const auto empty = model->new_sequence();
  KVFS_TRY(decode_rate(*model, *empty, 1, 20));
  KVFS_ASSIGN(const double at_0, decode_rate(*model, *empty, 1, 128));
  KVFS_ASSIGN(const double at_end, decode_rate(*model, *context, 1, 128));
  KVFS_ASSIGN(const double pinned, pinned_rate());
  using kvfs::chunk::CodecId;
  KVFS_ASSIGN(const Restored raw, restore(*model, *context, CodecId::kRaw));
  KVFS_ASSIGN(const Restored zh, restore(*model, *context, CodecId::kZh));
  Ahead ahead;
  if (model->most_ahead() > 0) {
    KVFS_TRY(ahead_rate(*model, *context, 64));
    KVFS_ASSIGN(ahead, ahead_rate(*model, *context, 512));
  }
  KVFS_ASSIGN(const double sixteen, decode_rate(*model, *context, 16, 64));

  const double bytes =
      weight_bytes(info, path) + tokens_of_context * static_cast<double>(kv_bytes_per_token(info));
  std::printf(
      "{\"model\": \"%s\", \"kernels\": \"%s\", \"device\": \"%s\", \"load_s\": %.2f, "
      "\"context\": %d, \"prefill_tok_s\": %.0f, \"decode_0_tok_s\": %.1f, "
      "\"decode_tok_s\": %.1f, \"ahead_tok_s\": %.1f, \"ahead_gap_ms\": %.2f, "
      "\"saving_gap_ms\": %.2f, \"decode_16_forks_tok_s\": %.1f, \"copy_gb_s\": %.0f, "
      "\"bound_tok_s\": %.0f, \"share_of_bound\": %.4f, \"pinned_gb_s\": %.1f, "
      "\"restore_gb_s\": %.1f, \"restore_ms\": %.1f, \"question_20_ms\": %.1f, "
      "\"zh_size\": %.3f, \"zh_restore_gb_s\": %.1f, \"zh_restore_ms\": %.1f, "
      "\"zh_question_20_ms\": %.1f}\n",
      info.name.c_str(), info.kernel_class.c_str(), info.device.c_str(), load, tokens_of_context,
      median(prefills), at_0, at_end, ahead.rate, ahead.gap * 1e3, ahead.saving_gap * 1e3, sixteen,
      copy / 1e9, copy / bytes, at_end / (copy / bytes), pinned / 1e9,
      raw.bytes / raw.seconds / 1e9, raw.seconds * 1e3, raw.question * 1e3, zh.from_host / zh.bytes,
      zh.bytes / zh.seconds / 1e9, zh.seconds * 1e3, zh.question * 1e3);
  return {};
}

kvfs::Status run_modes(const std::string& path, const std::string& mode, int context) {
  KVFS_ASSIGN(const double copy, copy_rate());
  if (mode != "reference") KVFS_TRY(run(path, Compute::kFast, context, copy));
  if (mode != "fast") KVFS_TRY(run(path, Compute::kReference, context, copy));
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  const std::string path =
      argc > 1 ? argv[1] : KVFS_DEPS_DIR "/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  const int context = argc > 3 ? std::atoi(argv[3]) : 2048;
  if (const auto done = run_modes(path, argc > 2 ? argv[2] : "both", context); !done) {
    std::fprintf(stderr, "bench_cuda_model: %s\n", done.error().message().c_str());
    return 1;
  }
  return 0;
}

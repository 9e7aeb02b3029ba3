#include "engine/model/cuda/forward.h"

#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "engine/model/cuda/cuda_model.h"
#include "engine/model/cuda/generator.h"
#include "engine/model/cuda/reader.h"
#include "engine/model/cuda/step_graphs.h"

namespace kvfs::model::cuda {
namespace {

// Of attention's partial results; long histories take more launches of fewer rows.
constexpr std::size_t kScratchBytes = std::size_t{256} << 20;

void check(cudaError_t error) {
  if (error != cudaSuccess) throw ForwardError(error);
}

// The fast mode: bf16.
class FastForward final : public Forward {
 public:
  FastForward(const LlamaSizes& config, const Weights& weights, const PageShape& pages,
              at::Device device)
      : reader_(config, weights, pages, device), generator_(config, weights, device) {}
  void read(const DeviceSequence& sequence, std::span<const TokenId> tokens,
            std::span<float> logits) override {
    reader_.read(sequence, tokens, logits);
  }
  int most_grids() const override { return Reader::kMostGrids; }
  void generate(std::span<const Row> rows) override { generator_.generate(rows); }
  int most_ahead() const override { return kMostAhead; }
  void launch(std::span<const AheadRow> rows) override { generator_.launch(rows); }
  std::vector<TokenId> hear() override { return generator_.hear(); }

 private:
  Reader reader_;
  Generator generator_;
};

// The reference mode: plain kernels, fp32 throughout.
class ReferenceForward final : public Forward {
 public:
  ReferenceForward(const LlamaSizes& config, const Weights& weights, const PageShape& pages,
                   at::Device device)
      : config_(config), weights_(weights), pages_(pages), device_(device) {
    const auto fp32 = at::TensorOptions().dtype(at::kFloat).device(device);
    residual_ = at::zeros({kGridRows, config.width}, fp32);
    normed_ = at::zeros({kGridRows, config.width}, fp32);
    qkv_ = at::zeros({kGridRows, qkv_width()}, fp32);
    attended_ = at::zeros({kGridRows, config.heads * config.head_width}, fp32);
    projected_ = at::zeros({kGridRows, config.width}, fp32);
    gate_up_ = at::zeros({kGridRows, 2 * config.ffn_width}, fp32);
    activated_ = at::zeros({kGridRows, config.ffn_width}, fp32);
    logits_ = at::zeros({kMaxBatch, config.vocab}, fp32);
  }

  void read(const DeviceSequence& sequence, std::span<const TokenId> tokens,
            std::span<float> logits) override {
    const int count = static_cast<int>(tokens.size());
    const int first = sequence.next_pos() % kGridRows;
    std::vector<RowPlace> places;
    for (int i = 0; i < count; ++i) places.push_back({sequence.next_pos() + i, 0});
    const Batch batch = upload(tokens, places, {&sequence});
    reserve_scratch(batch, count);
    check(embed(data(weights_.embedding), batch.tokens, count, config_.width, row(residual_, first),
                stream()));
    for (int layer = 0; layer < config_.layers; ++layer) {
      const LayerWeights& w = weights_.layers[static_cast<std::size_t>(layer)];
      norm(w.attn_norm, first, count);
      multiply(qkv_, normed_, w.qkv.data);
      attend(batch, layer, first, count, true);
      multiply(projected_, attended_, w.out.data);
      add_projected(first, count);
      norm(w.ffn_norm, first, count);
      multiply(gate_up_, normed_, w.gate_up.data);
      activate(first, count);
      multiply(projected_, activated_, w.down.data);
      add_projected(first, count);
    }
    if (!logits.empty()) {
      norm(weights_.output_norm, first + count - 1, 1);
      check(linear_rows(data(weights_.output.data), row(normed_, first + count - 1), 1,
                        config_.vocab, config_.width, false, row(logits_, 0), stream()));
      download(0, logits);
    }
    check(cudaStreamSynchronize(stream()));
  }

  void generate(std::span<const Row> rows) override {
    const int count = static_cast<int>(rows.size());
    std::vector<TokenId> tokens;
    std::vector<RowPlace> places;
    std::vector<const DeviceSequence*> sequences;
    int first_page = 0;
    for (const Row& each : rows) {
      tokens.push_back(each.token);
      places.push_back({each.sequence->next_pos(), first_page});
      sequences.push_back(each.sequence);
      first_page += each.sequence->pages();
    }
    const Batch batch = upload(tokens, places, sequences);
    reserve_scratch(batch, count);
    check(
        graphs_.run({count, 0, batch.most_pages, 0}, stream(), [&] { launch_step(batch, count); }));
    for (int i = 0; i < count; ++i) download(i, rows[static_cast<std::size_t>(i)].logits);
    check(cudaStreamSynchronize(stream()));
  }

 private:
  // What a step's kernels read, in one piece of device memory.
  struct Batch {
    const RowPlace* places;      // [rows]
    const std::int32_t* tokens;  // [rows]
    void* const* addresses;      // [pages of all sequences]
    int most_pages = 0;          // of one sequence's visible history
  };

  void launch_step(const Batch& batch, int count) {
    check(embed(data(weights_.embedding), batch.tokens, count, config_.width, row(residual_, 0),
                stream()));
    for (int layer = 0; layer < config_.layers; ++layer) {
      const LayerWeights& w = weights_.layers[static_cast<std::size_t>(layer)];
      norm(w.attn_norm, 0, count);
      rows_times(w.qkv.data, normed_, count, false, qkv_);
      attend(batch, layer, 0, count, false);
      rows_times(w.out.data, attended_, count, true, residual_);
      norm(w.ffn_norm, 0, count);
      rows_times(w.gate_up.data, normed_, count, false, gate_up_);
      activate(0, count);
      rows_times(w.down.data, activated_, count, true, residual_);
    }
    norm(weights_.output_norm, 0, count);
    rows_times(weights_.output.data, normed_, count, false, logits_);
  }

  static cudaStream_t stream() { return c10::cuda::getCurrentCUDAStream(); }
  std::int64_t qkv_width() const {
    return std::int64_t{config_.heads + 2 * config_.kv_heads} * config_.head_width;
  }
  HeadShape heads() const { return {config_.heads, config_.kv_heads, config_.head_width}; }

  static const float* data(const at::Tensor& tensor) { return tensor.const_data_ptr<float>(); }
  static float* row(const at::Tensor& tensor, std::int64_t index) {
    return tensor.data_ptr<float>() + index * tensor.size(1);
  }

  Batch upload(std::span<const TokenId> tokens, const std::vector<RowPlace>& places,
               const std::vector<const DeviceSequence*>& sequences) {
    std::vector<void*> addresses;
    for (const DeviceSequence* sequence : sequences) {
      for (int i = 0; i < sequence->pages(); ++i) addresses.push_back(sequence->page_address(i));
    }
    // Each part at the same place in every step, where recorded steps look for it.
    constexpr std::size_t tokens_at = kGridRows * sizeof(RowPlace);
    constexpr std::size_t addresses_at = tokens_at + kGridRows * sizeof(TokenId);
    Bytes host(addresses_at + addresses.size() * sizeof(void*));
    std::memcpy(host.data(), places.data(), places.size() * sizeof(RowPlace));
    std::memcpy(host.data() + tokens_at, tokens.data(), tokens.size_bytes());
    std::memcpy(host.data() + addresses_at, addresses.data(), addresses.size() * sizeof(void*));

    make_room(batch_, static_cast<std::int64_t>(host.size()), at::kByte);
    Batch batch{};
    auto* device = static_cast<std::uint8_t*>(batch_.data_ptr());
    // From pageable memory: the bytes are staged when the call returns.
    check(cudaMemcpyAsync(device, host.data(), host.size(), cudaMemcpyHostToDevice, stream()));
    batch.places = reinterpret_cast<const RowPlace*>(device);
    batch.tokens = reinterpret_cast<const std::int32_t*>(device + tokens_at);
    batch.addresses = reinterpret_cast<void* const*>(device + addresses_at);
    for (const RowPlace& place : places) {
      batch.most_pages = std::max(batch.most_pages, place.position / kBlockTokens + 1);
    }
    return batch;
  }
  // Grows buffer, to a power of two; recorded steps knew the old one.
  void make_room(at::Tensor& buffer, std::int64_t elements, at::ScalarType type) {
    if (buffer.defined() && buffer.numel() >= elements) return;
    const auto size =
        static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(elements)));
    graphs_.clear();
    buffer = at::Tensor();  // given back first: the two need not fit side by side
    buffer = at::empty({size}, at::TensorOptions().dtype(type).device(device_));
  }
  int rows_at_once(const Batch& batch, int count) const {
    const std::size_t of_row = attention_scratch(1, batch.most_pages, heads());
    return static_cast<int>(std::clamp<std::size_t>(kScratchBytes / sizeof(float) / of_row, 1,
                                                    static_cast<std::size_t>(count)));
  }
  void reserve_scratch(const Batch& batch, int count) {
    const std::size_t of_row = attention_scratch(1, batch.most_pages, heads());
    make_room(partial_, static_cast<std::int64_t>(of_row) * rows_at_once(batch, count), at::kFloat);
  }
  void download(int index, std::span<float> out) const {
    check(cudaMemcpyAsync(out.data(), row(logits_, index), out.size_bytes(), cudaMemcpyDeviceToHost,
                          stream()));
  }

  void norm(const at::Tensor& weight, int first, int count) {
    check(rms_norm(row(residual_, first), weight.const_data_ptr<float>(), count, config_.width,
                   config_.rms_epsilon, row(normed_, first), stream()));
  }
  // [kGridRows, k] · [n, k]ᵀ, always of this one shape.
  void multiply(at::Tensor& out, const at::Tensor& in, const at::Tensor& w) const {
    at::mm_out(out, in, w.t());
  }
  void rows_times(const at::Tensor& w, const at::Tensor& in, int count, bool accumulate,
                  at::Tensor& out) const {
    check(linear_rows(data(w), row(in, 0), count, static_cast<int>(w.size(0)),
                      static_cast<int>(w.size(1)), accumulate, row(out, 0), stream()));
  }
  void attend(const Batch& batch, int layer, int first, int count, bool one_sequence) {
    const KvPlace kv{batch.addresses, pages_.offset(layer, 0), pages_.offset(layer, 1)};
    check(rope_and_store<float>(row(qkv_, first), weights_.frequencies.const_data_ptr<float>(),
                                batch.places, count, heads(), kv, stream()));
    const int at_once = rows_at_once(batch, count);
    for (int begin = 0; begin < count; begin += at_once) {
      const int rows = std::min(at_once, count - begin);
      check(attention(row(qkv_, first + begin), batch.places + begin, rows, one_sequence,
                      batch.most_pages, heads(), kv, partial_.data_ptr<float>(),
                      row(attended_, first + begin), stream()));
    }
  }
  void activate(int first, int count) {
    check(swiglu(row(gate_up_, first), count, config_.ffn_width, row(activated_, first), stream()));
  }
  void add_projected(int first, int count) {
    check(add(row(residual_, first), row(projected_, first), std::int64_t{count} * config_.width,
              stream()));
  }

  const LlamaSizes& config_;
  const Weights& weights_;
  PageShape pages_;
  at::Device device_;
  // [kGridRows, …]; rows that no token sits in hold numbers of earlier slices.
  at::Tensor residual_, normed_, qkv_, attended_, projected_, gate_up_, activated_;
  at::Tensor logits_;   // [kMaxBatch, vocab]
  at::Tensor partial_;  // attention's scratch
  at::Tensor batch_;    // what upload() put there last
  StepGraphs graphs_;
};

}  // namespace

std::unique_ptr<Forward> make_forward(const LlamaSizes& config, const Weights& weights,
                                      const PageShape& pages, at::Device device) {
  if (pages.dtype == DType::kF32)
    return std::make_unique<ReferenceForward>(config, weights, pages, device);
  return std::make_unique<FastForward>(config, weights, pages, device);
}

}  // namespace kvfs::model::cuda

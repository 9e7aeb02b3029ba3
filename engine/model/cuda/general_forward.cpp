#include "engine/model/cuda/general_forward.h"

#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "engine/model/cpu/router.h"
#include "engine/model/cuda/cuda_model.h"

namespace kvfs::model::cuda {
namespace {

void check(cudaError_t error) {
  if (error != cudaSuccess) throw ForwardError(error);
}
cudaStream_t stream() { return c10::cuda::getCurrentCUDAStream(); }

const float* floats(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.const_data_ptr<float>() : nullptr;
}

int widest_ffn(const Architecture& a) {
  int widest = 0;
  for (const Layer& layer : a.layers)
    for (const FeedForward& ffn : layer.experts) widest = std::max(widest, ffn.width);
  return widest;
}

template <class T>
class GeneralForward final : public Forward {
 public:
  GeneralForward(Architecture model, GeneralWeights weights, const PageShape& pages,
                 at::Device device, bool gemm)
      : model_(std::move(model)),
        weights_(std::move(weights)),
        pages_(pages),
        device_(device),
        gemm_(gemm),
        attention_(device) {
    const int widest = std::max({model_.width, model_.q_width(), widest_ffn(model_)});
    for (at::Tensor* each : {&x_, &attention_part_, &ffn_part_, &answered_})
      *each = make(kGridRows * model_.width, at::kFloat);
    const std::int64_t gates = pages_.convolves() ? std::int64_t{3} * model_.width : 0;
    qkv_ = make(kGridRows * std::max(qkv_width(), gates), at::kFloat);
    up_ = make(kGridRows * std::int64_t{2} * widest_ffn(model_), at::kFloat);
    for (at::Tensor* each : {&normed_, &hidden_, &gathered_})
      *each = make(kGridRows * widest, kType);
    logits_ = make(std::int64_t{kMaxBatch} * model_.vocab, at::kFloat);
  }

  void read(const DeviceSequence& sequence, std::span<const TokenId> tokens,
            std::span<float> logits, const Watch* watch) override {
    std::vector<RowPlace> places;
    for (std::size_t i = 0; i < tokens.size(); ++i)
      places.push_back({sequence.next_pos() + static_cast<int>(i), 0});
    upload(tokens, places, {&sequence});
    const int count = static_cast<int>(tokens.size());
    watch_ = watch;
    step({sequence.next_pos() % kGridRows, count, true});
    if (!logits.empty()) {
      output(sequence.next_pos() % kGridRows + count - 1, 1);
      download(0, logits);
    }
    check(cudaStreamSynchronize(stream()));
  }

  void generate(std::span<const Row> rows) override {
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
    upload(tokens, places, sequences);
    const int count = static_cast<int>(rows.size());
    watch_ = nullptr;
    step({0, count, false});
    output(0, count);
    for (int i = 0; i < count; ++i) download(i, rows[static_cast<std::size_t>(i)].logits);
    check(cudaStreamSynchronize(stream()));
  }

  Turning turning(int index) const override {
    const Layer& layer = model_.layers[static_cast<std::size_t>(index)];
    if (!layer.rope) return {nullptr, 0};
    const Rope& rope = model_.ropes[static_cast<std::size_t>(*layer.rope)];
    const GeneralRope& device = weights_.ropes[static_cast<std::size_t>(*layer.rope)];
    return {floats(device.frequencies), static_cast<int>(rope.frequencies.size()),
            floats(device.late), rope.late_from, rope.magnitude};
  }

 private:
  static constexpr at::ScalarType kType = std::is_same_v<T, float>    ? at::kFloat
                                          : std::is_same_v<T, __half> ? at::kHalf
                                                                      : at::kBFloat16;

  // Rows of the buffers, which tokens sit in.
  struct Rows {
    int first;
    int count;
    bool reading;
  };

  at::Tensor make(std::int64_t elements, at::ScalarType type) const {
    return at::zeros({elements}, at::TensorOptions().dtype(type).device(device_));
  }
  void make_room(at::Tensor& buffer, std::int64_t elements, at::ScalarType type) {
    if (buffer.defined() && buffer.numel() >= elements) return;
    buffer = at::Tensor();  // given back first: the two need not fit side by side
    buffer =
        at::empty({static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(elements)))},
                  at::TensorOptions().dtype(type).device(device_));
  }
  template <class E>
  static E* row(const at::Tensor& buffer, std::int64_t width, std::int64_t index) {
    return static_cast<E*>(buffer.data_ptr()) + index * width;
  }
  std::int64_t qkv_width() const { return model_.q_width() + std::int64_t{2} * model_.kv_width(); }
  HeadShape heads() const { return {model_.heads, model_.kv_heads, model_.head_width}; }

  void upload(std::span<const TokenId> tokens, const std::vector<RowPlace>& places,
              const std::vector<const DeviceSequence*>& sequences) {
    std::vector<void*> addresses;
    for (const DeviceSequence* sequence : sequences) {
      for (int i = 0; i < sequence->pages(); ++i) addresses.push_back(sequence->page_address(i));
    }
    const std::size_t tokens_at = addresses.size() * sizeof(void*);
    const std::size_t places_at = tokens_at + tokens.size_bytes() + tokens.size_bytes() % 8;
    Bytes host(places_at + places.size() * sizeof(RowPlace));
    std::memcpy(host.data(), addresses.data(), addresses.size() * sizeof(void*));
    std::memcpy(host.data() + tokens_at, tokens.data(), tokens.size_bytes());
    std::memcpy(host.data() + places_at, places.data(), places.size() * sizeof(RowPlace));
    make_room(batch_, static_cast<std::int64_t>(host.size()), at::kByte);
    auto* device = static_cast<std::uint8_t*>(batch_.data_ptr());
    // From pageable memory: the bytes are staged when the call returns.
    check(cudaMemcpyAsync(device, host.data(), host.size(), cudaMemcpyHostToDevice, stream()));
    addresses_ = reinterpret_cast<void* const*>(device);
    tokens_ = reinterpret_cast<const std::int32_t*>(device + tokens_at);
    places_ = reinterpret_cast<const RowPlace*>(device + places_at);
    first_position_ = places.front().position;
    most_pages_ = 0;
    for (const RowPlace& place : places)
      most_pages_ = std::max(most_pages_, place.position / kBlockTokens + 1);
  }
  void download(int index, std::span<float> out) const {
    check(cudaMemcpyAsync(out.data(), row<float>(logits_, model_.vocab, index), out.size_bytes(),
                          cudaMemcpyDeviceToHost, stream()));
  }

  void step(Rows rows) {
    float* x = row<float>(x_, model_.width, rows.first);
    check(embed(row<T>(weights_.embedding, 0, 0), tokens_, rows.count, model_.width,
                model_.embedding_scale, x, stream()));
    if (weights_.positions.defined()) {
      check(add_positions(floats(weights_.positions), places_, rows.count, model_.width, x,
                          stream()));
    }
    for (std::size_t layer = 0; layer < model_.layers.size(); ++layer) {
      mix(layer, rows);
      feed_forward(layer, rows);
      if (model_.parallel) add_to_stream({}, attention_part_, rows);
    }
  }

  // Positions with each other: by attention, or by a convolution.
  void mix(std::size_t index, Rows rows) {
    const GeneralLayer& w = weights_.layers[index];
    prepare(w.attn_norm, rows);
    multiply(w.qkv, normed_, rows, qkv_);
    if (w.taps.defined()) {
      convolve(index, rows);
    } else {
      attend(index, rows);
    }
    multiply(w.attn_out, hidden_, rows, attention_part_);
    if (!model_.parallel) add_to_stream(w.attn_post, attention_part_, rows);
  }

  void convolve(std::size_t index, Rows rows) {
    const GeneralLayer& w = weights_.layers[index];
    const ConvolutionRule rule{model_.width, static_cast<int>(w.taps.size(0)), floats(w.taps),
                               floats(w.taps_bias), pages_.offset(static_cast<int>(index), 0)};
    check(short_convolution(row<float>(qkv_, 3 * model_.width, rows.first), places_, rows.count,
                            rule, addresses_, row<T>(hidden_, model_.width, rows.first), stream()));
  }

  void attend(std::size_t index, Rows rows) {
    const GeneralLayer& w = weights_.layers[index];
    const Layer& layer = model_.layers[index];
    float* qkv = row<float>(qkv_, qkv_width(), rows.first);
    norm_heads(w.q_norm, qkv, model_.q_width(), rows);
    norm_heads(w.k_norm, qkv + model_.q_width(), model_.kv_width(), rows);
    const auto layer_number = static_cast<int>(index);
    const KvPlace kv{addresses_, pages_.offset(layer_number, 0), pages_.offset(layer_number, 1)};
    if (watch_ != nullptr)
      watch_->see_queries(layer_number, qkv, first_position_, rows.count, heads());
    check(rope_and_store<KvOf<T>>(qkv, turning(layer_number), places_, rows.count, heads(), kv,
                                  stream()));
    const AttentionRule rule{model_.attention_scale, model_.score_cap, layer.window};
    attention_.run(layer_number, qkv, places_, rows.count, most_pages_, heads(), rule, kv,
                   row<T>(hidden_, model_.q_width(), rows.first), watch_);
  }

  void feed_forward(std::size_t index, Rows rows) {
    const GeneralLayer& w = weights_.layers[index];
    const Layer& layer = model_.layers[index];
    prepare(w.ffn_norm, rows);
    if (layer.router.weight.empty()) {
      expert(layer.experts.front(), w.experts.front(), normed_, rows, ffn_part_);
    } else {
      mixture(index, rows);
    }
    add_to_stream(w.ffn_post, ffn_part_, rows);
  }

  void expert(const FeedForward& shape, const GeneralExpert& w, const at::Tensor& in, Rows rows,
              at::Tensor& out) {
    multiply(w.up, in, rows, up_);
    check(activate(shape.activation, shape.gated,
                   row<float>(up_, shape.gated ? 2 * shape.width : shape.width, rows.first),
                   rows.count, shape.width, row<T>(hidden_, shape.width, rows.first), stream()));
    multiply(w.down, hidden_, rows, out);
  }

  void mixture(std::size_t index, Rows rows) {
    const GeneralLayer& w = weights_.layers[index];
    const Layer& layer = model_.layers[index];
    const int experts = static_cast<int>(layer.experts.size());
    multiply(w.router, normed_, {rows.first, rows.count, false}, up_);
    std::vector<float> scores(static_cast<std::size_t>(rows.count * experts));
    check(cudaMemcpyAsync(scores.data(), row<float>(up_, experts, rows.first),
                          scores.size() * sizeof(float), cudaMemcpyDeviceToHost, stream()));
    check(cudaStreamSynchronize(stream()));
    router_.choose(scores.data(), experts, rows.count, experts, layer.experts_chosen,
                   layer.weights_renormalized);

    std::vector<ExpertVisit> visits;
    for (int e = 0; e < experts; ++e)
      for (const auto& visit : router_.visits(e))
        visits.push_back({rows.first + visit.row, visit.share});
    const auto bytes = static_cast<std::int64_t>(visits.size() * sizeof(ExpertVisit));
    make_room(visits_, bytes, at::kByte);
    check(cudaMemcpyAsync(visits_.data_ptr(), visits.data(), visits.size() * sizeof(ExpertVisit),
                          cudaMemcpyHostToDevice, stream()));
    check(cudaMemsetAsync(row<float>(ffn_part_, model_.width, rows.first), 0,
                          static_cast<std::size_t>(rows.count * model_.width) * sizeof(float),
                          stream()));
    const auto* next = static_cast<const ExpertVisit*>(visits_.data_ptr());
    for (int e = 0; e < experts; ++e) {
      const int count = static_cast<int>(router_.visits(e).size());
      if (count == 0) continue;
      check(gather_rows(row<T>(normed_, 0, 0), next, count, model_.width, row<T>(gathered_, 0, 0),
                        stream()));
      const auto which = static_cast<std::size_t>(e);
      expert(layer.experts[which], w.experts[which], gathered_, {0, count, false}, answered_);
      check(scatter_rows(row<float>(answered_, 0, 0), next, count, model_.width,
                         row<float>(ffn_part_, 0, 0), stream()));
      next += count;
    }
  }

  void output(int first, int count) {
    prepare(weights_.output_norm, {first, count, false});
    const GeneralLinear& w = weights_.output;
    check(linear_rows(row<T>(w.weight, 0, 0), row<T>(normed_, model_.width, first), count,
                      model_.vocab, model_.width, false, row<float>(logits_, 0, 0), stream()));
    if (w.bias.defined())
      check(add_bias(floats(w.bias), count, model_.vocab, row<float>(logits_, 0, 0), stream()));
    if (model_.logit_cap != 0.0F) {
      check(soft_cap(row<float>(logits_, 0, 0), model_.logit_cap,
                     std::int64_t{count} * model_.vocab, stream()));
    }
  }

  NormRule rule_of(const GeneralNorm& norm) const {
    return {norm.kind == Norm::Kind::kLayer, static_cast<int>(norm.weight.numel()), model_.epsilon,
            floats(norm.weight), floats(norm.bias)};
  }
  // The stream, normed where there is a norm, as products want it: in normed_.
  void prepare(const GeneralNorm& with, Rows rows) {
    const float* x = row<float>(x_, model_.width, rows.first);
    T* out = row<T>(normed_, model_.width, rows.first);
    if (with.kind == Norm::Kind::kNone) {
      check(round_to(x, std::int64_t{rows.count} * model_.width, out, stream()));
    } else {
      check(norm(rule_of(with), x, rows.count, 1, model_.width, out, stream()));
    }
  }
  void norm_heads(const GeneralNorm& with, float* at, int width, Rows rows) {
    if (with.kind == Norm::Kind::kNone) return;
    const NormRule rule = rule_of(with);
    check(norm(rule, at, rows.count, width / rule.length, qkv_width(), at, stream()));
  }
  void add_to_stream(const GeneralNorm& post, at::Tensor& part, Rows rows) {
    float* from = row<float>(part, model_.width, rows.first);
    if (post.kind != Norm::Kind::kNone)
      check(norm(rule_of(post), from, rows.count, 1, model_.width, from, stream()));
    check(add(row<float>(x_, model_.width, rows.first), from,
              std::int64_t{rows.count} * model_.width, stream()));
  }

  // out [rows, outputs] = in [rows, inputs] · wᵀ + bias. A prompt's rows as one product of
  // kGridRows, always of this shape.
  void multiply(const GeneralLinear& w, const at::Tensor& in, Rows rows, at::Tensor& out) const {
    const std::int64_t outputs = w.weight.size(0);
    const std::int64_t inputs = w.weight.size(1);
    if (rows.reading && gemm_) {
      at::Tensor to = out.narrow(0, 0, kGridRows * outputs).view({kGridRows, outputs});
      const at::Tensor from = in.narrow(0, 0, kGridRows * inputs).view({kGridRows, inputs});
      if constexpr (std::is_same_v<T, float>) {
        at::mm_out(to, from, w.weight.t());
      } else {
        at::mm_out(to, from, w.weight.t(), at::kFloat);
      }
    } else {
      for (int begin = 0; begin < rows.count; begin += kMaxBatch) {
        check(linear_rows(row<T>(w.weight, 0, 0), row<T>(in, inputs, rows.first + begin),
                          std::min(kMaxBatch, rows.count - begin), static_cast<int>(outputs),
                          static_cast<int>(inputs), false,
                          row<float>(out, outputs, rows.first + begin), stream()));
      }
    }
    if (w.bias.defined()) {
      check(add_bias(floats(w.bias), rows.count, static_cast<int>(outputs),
                     row<float>(out, outputs, rows.first), stream()));
    }
  }

  const Architecture model_;
  const GeneralWeights weights_;
  const PageShape pages_;
  const at::Device device_;
  const bool gemm_;
  RowAttention attention_;
  cpu::Router router_;
  // [kGridRows, …], as wide as the widest use; rows that no token sits in hold earlier numbers.
  at::Tensor x_, qkv_, attention_part_, ffn_part_, up_, answered_;
  at::Tensor normed_, hidden_, gathered_;  // of type T
  at::Tensor logits_;                      // [kMaxBatch, vocab]
  at::Tensor visits_;
  at::Tensor batch_;  // what upload() put there last:
  void* const* addresses_ = nullptr;
  const std::int32_t* tokens_ = nullptr;
  const RowPlace* places_ = nullptr;
  int first_position_ = 0;
  int most_pages_ = 0;
  const Watch* watch_ = nullptr;  // of the step at hand
};

}  // namespace

std::unique_ptr<Forward> make_general_forward(Architecture model, GeneralWeights weights,
                                              const PageShape& pages, at::Device device,
                                              bool gemm) {
  const auto of = [&]<class T>() -> std::unique_ptr<Forward> {
    return std::make_unique<GeneralForward<T>>(std::move(model), std::move(weights), pages, device,
                                               gemm);
  };
  switch (weights.embedding.scalar_type()) {
    case at::kFloat:
      return of.template operator()<float>();
    case at::kHalf:
      return of.template operator()<__half>();
    default:
      return of.template operator()<__nv_bfloat16>();
  }
}

}  // namespace kvfs::model::cuda

#include "engine/model/cuda/general_weights.h"

#include <algorithm>

#include "engine/model/cpu/matrix.h"
#include "engine/model/cpu/weights.h"
#include "engine/model/dequantize.h"

namespace kvfs::model::cuda {
namespace {

class Loader {
 public:
  Loader(at::ScalarType type, at::Device device) : type_(type), device_(device) {}

  at::Tensor vector(std::vector<float> values, std::size_t length) const {
    values.resize(length);
    return at::tensor(at::ArrayRef<float>(values), at::kFloat).to(device_);
  }
  GeneralNorm norm(const Norm& from) const {
    const cpu::NormWeights host = cpu::norm_weights(from);
    GeneralNorm made{from.kind, {}, {}};
    if (from.kind != Norm::Kind::kNone) made.weight = vector(host.weight, host.weight.size());
    if (!host.bias.empty()) made.bias = vector(host.bias, host.bias.size());
    return made;
  }
  GeneralLinear linear(const Linear& from) const {
    GeneralLinear made;
    if (from.weight.empty()) return made;
    made.weight = matrix(from.weight, from.inputs, type_);
    if (!from.bias.empty())
      made.bias = vector(cpu::bias_of(from.bias), static_cast<std::size_t>(from.outputs()));
    return made;
  }
  void convolution(const Convolution& from, GeneralLayer& to) const {
    const auto channels = static_cast<std::size_t>(from.in.inputs);
    to.qkv = linear(from.in);
    to.attn_out = linear(from.out);
    to.taps = at::tensor(at::ArrayRef<float>(cpu::taps_of(from, channels)), at::kFloat)
                  .view({from.taps, from.in.inputs})
                  .to(device_);
    to.taps_bias = vector(cpu::floats_of(from.bias), channels);
  }
  // A band of rows at a time, so that host memory stays small.
  at::Tensor matrix(const std::vector<Slice>& slices, int inputs, at::ScalarType type) const {
    constexpr int kBandRows = 4096;
    int outputs = 0;
    for (const Slice& slice : slices) outputs += slice.rows;
    at::Tensor out = at::empty({outputs, inputs}, at::TensorOptions().dtype(type).device(device_));
    int at_row = 0;
    for (const Slice& slice : slices) {
      const cpu::Rows rows{inputs, {slice}};
      for (int begin = 0; begin < slice.rows; begin += kBandRows) {
        const int count = std::min(kBandRows, slice.rows - begin);
        out.narrow(0, at_row, count).copy_(band(rows, begin, count).to(type));
        at_row += count;
      }
    }
    return out;
  }

 private:
  static at::Tensor band(const cpu::Rows& rows, int begin, int count) {
    const auto width = static_cast<std::size_t>(rows.inputs);
    at::Tensor values = at::empty({count, rows.inputs}, at::kFloat);
    Bytes scratch;
    for (int i = 0; i < count; ++i) {
      dequantize_row(rows.type(), rows.row(begin + i, scratch),
                     {values.data_ptr<float>() + static_cast<std::size_t>(i) * width, width});
    }
    return values;
  }

  at::ScalarType type_;
  at::Device device_;
};

}  // namespace

std::uint64_t general_weights_size(const Architecture& model, at::ScalarType type) {
  std::uint64_t elements = 0;
  const auto add = [&](const Linear& linear) {
    elements +=
        static_cast<std::uint64_t>(linear.outputs()) * static_cast<std::uint64_t>(linear.inputs);
  };
  elements += static_cast<std::uint64_t>(model.vocab) * static_cast<std::uint64_t>(model.width);
  if (!model.tied()) add(model.output);
  for (const Layer& layer : model.layers) {
    add(layer.qkv);
    add(layer.attn_out);
    if (layer.convolution) {
      add(layer.convolution->in);
      add(layer.convolution->out);
    }
    add(layer.router);
    for (const FeedForward& expert : layer.experts) {
      add(expert.up);
      add(expert.down);
    }
  }
  return elements * (type == at::kFloat ? 4 : 2);
}

GeneralWeights load_general_weights(const Architecture& model, at::ScalarType type,
                                    at::Device device,
                                    const std::function<void(double)>& progress) {
  const Loader load(type, device);
  GeneralWeights made;
  made.embedding =
      load.matrix({{.tensor = model.embedding, .rows = model.vocab}}, model.width, type);
  if (model.positions != nullptr) {
    made.positions =
        load.matrix({{.tensor = model.positions, .rows = model.context}}, model.width, at::kFloat);
  }
  for (const Rope& rope : model.ropes) {
    GeneralRope& to = made.ropes.emplace_back();
    to.frequencies = load.vector(rope.frequencies, rope.frequencies.size());
    if (!rope.late_frequencies.empty())
      to.late = load.vector(rope.late_frequencies, rope.late_frequencies.size());
  }
  made.output_norm = load.norm(model.output_norm);
  if (model.tied() && model.output.bias.empty()) {
    made.output.weight = made.embedding;
  } else {
    made.output = load.linear(model.output);
  }
  for (const Layer& from : model.layers) {
    GeneralLayer layer{.attn_norm = load.norm(from.attn_norm),
                       .q_norm = load.norm(from.q_norm),
                       .k_norm = load.norm(from.k_norm),
                       .attn_post = load.norm(from.attn_post),
                       .ffn_norm = load.norm(from.ffn_norm),
                       .ffn_post = load.norm(from.ffn_post),
                       .qkv = load.linear(from.qkv),
                       .attn_out = load.linear(from.attn_out),
                       .taps = {},
                       .taps_bias = {},
                       .router = load.linear(from.router),
                       .experts = {}};
    if (from.convolution) load.convolution(*from.convolution, layer);
    for (const FeedForward& expert : from.experts)
      layer.experts.push_back({load.linear(expert.up), load.linear(expert.down)});
    made.layers.push_back(std::move(layer));
    if (progress) {
      progress(static_cast<double>(made.layers.size()) / static_cast<double>(model.layers.size()));
    }
  }
  return made;
}

}  // namespace kvfs::model::cuda

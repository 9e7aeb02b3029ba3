#include "engine/model/cuda/weights.h"

#include "engine/model/dequantize.h"

namespace kvfs::model::cuda {
namespace {

class Loader {
 public:
  Loader(at::ScalarType type, at::Device device) : type_(type), device_(device) {}

  at::Tensor vector(const Tensor& tensor) const {
    at::Tensor out = at::empty({static_cast<std::int64_t>(tensor.dims[0])}, at::kFloat);
    dequantize_row(tensor.type, tensor.bytes,
                   {out.data_ptr<float>(), static_cast<std::size_t>(out.numel())});
    return out.to(device_);
  }

  // The slices' rows one below the other, a band at a time so that host memory stays small.
  at::Tensor matrix(const Linear& linear) const {
    const std::int64_t columns = linear.inputs;
    at::Tensor out =
        at::empty({linear.outputs(), columns}, at::TensorOptions().dtype(type_).device(device_));
    std::int64_t at_row = 0;
    for (const Slice& slice : linear.weight) {
      for (std::int64_t begin = 0; begin < slice.rows; begin += kBandRows) {
        const std::int64_t count = std::min<std::int64_t>(kBandRows, slice.rows - begin);
        out.narrow(0, at_row, count).copy_(band(slice, begin, count, columns));
        at_row += count;
      }
    }
    return out;
  }

 private:
  static constexpr std::int64_t kBandRows = 4096;

  at::Tensor band(const Slice& slice, std::int64_t begin, std::int64_t count,
                  std::int64_t columns) const {
    at::Tensor values = at::empty({count, columns}, at::kFloat);
    for (std::int64_t i = 0; i < count; ++i) {
      const auto row = static_cast<int>(begin + i);
      const int in_order =
          slice.permuted_head_width ? unpermuted_row(row, slice.permuted_head_width) : row;
      dequantize_row(slice.tensor->type,
                     row_of(*slice.tensor, static_cast<std::size_t>(slice.first + in_order)),
                     {values.data_ptr<float>() + i * columns, static_cast<std::size_t>(columns)});
    }
    return values.to(type_);
  }

  at::ScalarType type_;
  at::Device device_;
};

}  // namespace

LlamaSizes sizes_of(const Architecture& a) {
  return {.layers = static_cast<int>(a.layers.size()),
          .width = a.width,
          .heads = a.heads,
          .kv_heads = a.kv_heads,
          .head_width = a.head_width,
          .ffn_width = a.layers.front().experts.front().width,
          .vocab = a.vocab,
          .context = a.context,
          .rms_epsilon = a.epsilon};
}

Weights random_weights(const LlamaSizes& s, bool tied, at::ScalarType type, at::Device device) {
  const auto noise = [&](std::int64_t rows, std::int64_t columns) {
    return at::empty({rows, columns}, at::TensorOptions().dtype(type).device(device))
        .normal_(0.0, 0.02);
  };
  const auto ones = [&] {
    return at::ones({s.width}, at::TensorOptions().dtype(at::kFloat).device(device));
  };
  Weights weights;
  weights.embedding = noise(s.vocab, s.width);
  weights.output = tied ? weights.embedding : noise(s.vocab, s.width);
  weights.output_norm = ones();
  const at::Tensor pairs = at::arange(s.head_width / 2, at::kDouble);
  weights.frequencies = at::pow(500000.0, pairs * (-2.0 / s.head_width)).to(at::kFloat).to(device);
  const std::int64_t heads = std::int64_t{s.heads} * s.head_width;
  for (int i = 0; i < s.layers; ++i) {
    weights.layers.push_back(
        {.attn_norm = ones(),
         .qkv = noise(heads + 2 * std::int64_t{s.kv_heads} * s.head_width, s.width),
         .out = noise(s.width, heads),
         .ffn_norm = ones(),
         .gate_up = noise(2 * std::int64_t{s.ffn_width}, s.width),
         .down = noise(s.width, s.ffn_width)});
  }
  return weights;
}

Weights load_weights(const Architecture& model, at::ScalarType type, at::Device device,
                     const std::function<void(double)>& progress) {
  const Loader load(type, device);
  Weights weights;
  const Slice embedding{.tensor = model.embedding, .rows = model.vocab};
  weights.embedding = load.matrix({.inputs = model.width, .weight = {embedding}});
  weights.output = model.tied() ? weights.embedding : load.matrix(model.output);
  weights.output_norm = load.vector(*model.output_norm.weight);
  weights.frequencies =
      at::tensor(at::ArrayRef<float>(model.ropes.front().frequencies), at::kFloat).to(device);
  for (const Layer& layer : model.layers) {
    weights.layers.push_back({
        .attn_norm = load.vector(*layer.attn_norm.weight),
        .qkv = load.matrix(layer.qkv),
        .out = load.matrix(layer.attn_out),
        .ffn_norm = load.vector(*layer.ffn_norm.weight),
        .gate_up = load.matrix(layer.experts.front().up),
        .down = load.matrix(layer.experts.front().down),
    });
    if (progress) {
      progress(static_cast<double>(weights.layers.size()) /
               static_cast<double>(model.layers.size()));
    }
  }
  return weights;
}

}  // namespace kvfs::model::cuda

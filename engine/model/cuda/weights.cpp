#include "engine/model/cuda/weights.h"

#include "engine/model/dequantize.h"

namespace kvfs::model::cuda {
namespace {

using container::GgufTensor;

class Loader {
 public:
  Loader(at::ScalarType type, at::Device device) : type_(type), device_(device) {}

  at::Tensor vector(const GgufTensor& tensor) const {
    at::Tensor out = at::empty({static_cast<std::int64_t>(tensor.dims[0])}, at::kFloat);
    dequantize_row(tensor.type, tensor.bytes,
                   {out.data_ptr<float>(), static_cast<std::size_t>(out.numel())});
    return out.to(device_);
  }

  struct Source {
    const GgufTensor* tensor;
    int permuted_head_width = 0;  // 0: rows as they are
  };

  // The sources' rows one below the other, a band at a time so that host memory stays small.
  at::Tensor matrix(const std::vector<Source>& sources) const {
    std::int64_t rows = 0;
    for (const Source& source : sources) rows += rows_of(*source.tensor);
    const auto columns = static_cast<std::int64_t>(sources.front().tensor->dims[0]);
    at::Tensor out = at::empty({rows, columns}, at::TensorOptions().dtype(type_).device(device_));
    std::int64_t at_row = 0;
    for (const Source& source : sources) {
      for (std::int64_t begin = 0; begin < rows_of(*source.tensor); begin += kBandRows) {
        const std::int64_t count = std::min(kBandRows, rows_of(*source.tensor) - begin);
        out.narrow(0, at_row, count).copy_(band(source, begin, count, columns));
        at_row += count;
      }
    }
    return out;
  }

 private:
  static constexpr std::int64_t kBandRows = 4096;

  static std::int64_t rows_of(const GgufTensor& tensor) {
    return static_cast<std::int64_t>(tensor.dims[1]);
  }

  at::Tensor band(const Source& source, std::int64_t begin, std::int64_t count,
                  std::int64_t columns) const {
    at::Tensor values = at::empty({count, columns}, at::kFloat);
    for (std::int64_t i = 0; i < count; ++i) {
      const auto row = static_cast<int>(begin + i);
      const int in_file =
          source.permuted_head_width ? unpermuted_row(row, source.permuted_head_width) : row;
      dequantize_row(source.tensor->type, row_of(*source.tensor, static_cast<std::size_t>(in_file)),
                     {values.data_ptr<float>() + i * columns, static_cast<std::size_t>(columns)});
    }
    return values.to(type_);
  }

  at::ScalarType type_;
  at::Device device_;
};

}  // namespace

Weights load_weights(const LlamaModel& model, at::ScalarType type, at::Device device,
                     const std::function<void(double)>& progress) {
  const Loader load(type, device);
  const int head_width = model.config.head_width;
  Weights weights;
  weights.embedding = load.matrix({{model.tensors.embedding}});
  weights.output = model.tensors.tied() ? weights.embedding : load.matrix({{model.tensors.output}});
  weights.output_norm = load.vector(*model.tensors.output_norm);
  const std::vector<float> frequencies = rope_frequencies(model);
  weights.frequencies = at::tensor(at::ArrayRef<float>(frequencies), at::kFloat).to(device);
  for (const LlamaLayerTensors& layer : model.tensors.layers) {
    weights.layers.push_back({
        .attn_norm = load.vector(*layer.attn_norm),
        .qkv = load.matrix({{layer.wq, head_width}, {layer.wk, head_width}, {layer.wv}}),
        .out = load.matrix({{layer.wo}}),
        .ffn_norm = load.vector(*layer.ffn_norm),
        .gate_up = load.matrix({{layer.gate}, {layer.up}}),
        .down = load.matrix({{layer.down}}),
    });
    if (progress) {
      progress(static_cast<double>(weights.layers.size()) /
               static_cast<double>(model.config.layers));
    }
  }
  return weights;
}

}  // namespace kvfs::model::cuda

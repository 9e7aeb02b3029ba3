#include "engine/model/cpu/weights.h"

#include <algorithm>
#include <cstring>

namespace kvfs::model::cpu {
namespace {

using container::GgufTensor;

std::vector<float> floats(const GgufTensor& tensor) {
  std::vector<float> values(tensor.bytes.size() / sizeof(float));
  std::memcpy(values.data(), tensor.bytes.data(), values.size() * sizeof(float));
  return values;
}

RowSource source(const GgufTensor* tensor, int permuted_head_width = 0) {
  return {tensor, static_cast<int>(tensor->dims[1]), permuted_head_width};
}

class Loader {
 public:
  Loader(Compute compute, const Kernels& kernels, ForkJoin& pool)
      : compute_(compute), kernels_(kernels), pool_(pool) {}

  Result<Projection> projection(const std::vector<RowSource>& sources) {
    Projection made;
    int column = 0;
    for (std::size_t i = 0; i < sources.size();) {
      Rows rows;
      const int at = column;
      for (; i < sources.size() && (rows.sources.empty() || sources[i].tensor->type == rows.type());
           ++i) {
        rows.sources.push_back(sources[i]);
        column += sources[i].rows;
      }
      KVFS_ASSIGN(std::unique_ptr<Matrix> matrix, load(rows));
      made.parts.push_back({std::move(matrix), at});
    }
    return made;
  }

 private:
  Result<std::unique_ptr<Matrix>> load(const Rows& rows) {
    if (compute_ == Compute::kReference) return torch_matrix(rows, pool_);
    return pack_matrix(rows, kernels_, pool_);
  }

  Compute compute_;
  const Kernels& kernels_;
  ForkJoin& pool_;
};

}  // namespace

bool Projection::wants_quantized() const {
  return std::any_of(parts.begin(), parts.end(),
                     [](const Part& part) { return part.matrix->wants_quantized(); });
}

Status Projection::multiply(const Activations& in, Output out, ForkJoin& pool) const {
  for (const Part& part : parts) {
    KVFS_TRY(part.matrix->multiply(in, {out.y + part.column, out.stride, out.accumulate}, pool));
  }
  return {};
}

std::uint64_t weights_size(const LlamaModel& model, Compute compute) {
  std::uint64_t total = 0;
  const auto add = [&](const GgufTensor* tensor) {
    const std::uint64_t elements = tensor->dims[0] * tensor->dims[1];
    total += compute == Compute::kReference ? elements * sizeof(float) : tensor->bytes.size();
  };
  add(model.tensors.output);
  for (const LlamaLayerTensors& layer : model.tensors.layers) {
    for (const GgufTensor* tensor :
         {layer.wq, layer.wk, layer.wv, layer.wo, layer.gate, layer.up, layer.down}) {
      add(tensor);
    }
  }
  return total;
}

Result<Weights> load_weights(const LlamaModel& model, Compute compute, const Kernels& kernels,
                             ForkJoin& pool, const std::function<void(double)>& progress) {
  Loader loader(compute, kernels, pool);
  Weights weights;
  weights.output_norm = floats(*model.tensors.output_norm);
  KVFS_ASSIGN(weights.output, loader.projection({source(model.tensors.output)}));
  const int head_width = model.config.head_width;
  for (const LlamaLayerTensors& t : model.tensors.layers) {
    LayerWeights layer;
    layer.attn_norm = floats(*t.attn_norm);
    layer.ffn_norm = floats(*t.ffn_norm);
    KVFS_ASSIGN(layer.qkv, loader.projection(
                               {source(t.wq, head_width), source(t.wk, head_width), source(t.wv)}));
    KVFS_ASSIGN(layer.attn_out, loader.projection({source(t.wo)}));
    KVFS_ASSIGN(layer.gate_up, loader.projection({source(t.gate), source(t.up)}));
    KVFS_ASSIGN(layer.down, loader.projection({source(t.down)}));
    weights.layers.push_back(std::move(layer));
    if (progress) {
      progress(static_cast<double>(weights.layers.size()) /
               static_cast<double>(model.tensors.layers.size()));
    }
  }
  return weights;
}

}  // namespace kvfs::model::cpu

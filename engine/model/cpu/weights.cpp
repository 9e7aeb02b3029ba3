#include "engine/model/cpu/weights.h"

#include <algorithm>

#include "engine/model/dequantize.h"

namespace kvfs::model::cpu {
namespace {

class Loader {
 public:
  Loader(Compute compute, const Kernels& kernels, ForkJoin& pool, Arena& memory)
      : compute_(compute), kernels_(kernels), pool_(pool), memory_(memory) {}

  Result<Projection> projection(const Linear& linear) {
    Projection made;
    made.inputs = linear.inputs;
    made.bias = bias_of(linear.bias);
    int column = 0;
    const std::vector<Slice>& slices = linear.weight;
    for (std::size_t i = 0; i < slices.size();) {
      Rows rows{.inputs = linear.inputs};
      const int at = column;
      for (; i < slices.size() && (rows.slices.empty() || slices[i].tensor->type == rows.type());
           ++i) {
        rows.slices.push_back(slices[i]);
        column += slices[i].rows;
      }
      KVFS_ASSIGN(std::unique_ptr<Matrix> matrix, load(rows));
      made.parts.push_back({std::move(matrix), at});
    }
    return made;
  }

  Result<LayerWeights> layer(const Layer& from) {
    LayerWeights made;
    made.attn_norm = norm_weights(from.attn_norm);
    made.q_norm = norm_weights(from.q_norm);
    made.k_norm = norm_weights(from.k_norm);
    made.attn_post = norm_weights(from.attn_post);
    made.ffn_norm = norm_weights(from.ffn_norm);
    made.ffn_post = norm_weights(from.ffn_post);
    KVFS_ASSIGN(made.qkv, projection(from.qkv));
    KVFS_ASSIGN(made.attn_out, projection(from.attn_out));
    if (from.convolution) {
      KVFS_ASSIGN(made.convolution, convolution(*from.convolution));
    }
    KVFS_ASSIGN(made.router, projection(from.router));
    for (const FeedForward& expert : from.experts) {
      FeedForwardWeights weights;
      KVFS_ASSIGN(weights.up, projection(expert.up));
      KVFS_ASSIGN(weights.down, projection(expert.down));
      made.experts.push_back(std::move(weights));
    }
    return made;
  }

 private:
  Result<ConvolutionWeights> convolution(const Convolution& from) {
    ConvolutionWeights made;
    const auto channels = static_cast<std::size_t>(from.in.inputs);
    KVFS_ASSIGN(made.in, projection(from.in));
    KVFS_ASSIGN(made.out, projection(from.out));
    made.taps = taps_of(from, channels);
    made.bias = floats_of(from.bias);
    made.bias.resize(channels);
    return made;
  }

  Result<std::unique_ptr<Matrix>> load(const Rows& rows) {
    if (compute_ == Compute::kReference) return torch_matrix(rows, pool_);
    return pack_matrix(rows, kernels_, pool_, memory_);
  }

  Compute compute_;
  const Kernels& kernels_;
  ForkJoin& pool_;
  Arena& memory_;
};

}  // namespace

std::vector<float> floats_of(const Tensor* tensor) {
  if (tensor == nullptr) return {};
  std::vector<float> values(static_cast<std::size_t>(tensor->dims[0]));
  dequantize_row(tensor->type, tensor->bytes, values);
  return values;
}

// Channel by channel in the file, tap by tap here.
std::vector<float> taps_of(const Convolution& from, std::size_t channels) {
  const auto taps = static_cast<std::size_t>(from.taps);
  std::vector<float> out(taps * channels);
  std::vector<float> row(taps);
  for (std::size_t c = 0; c < channels; ++c) {
    dequantize_row(from.weight->type, row_of(*from.weight, c), row);
    for (std::size_t k = 0; k < taps; ++k) out[k * channels + c] = row[k];
  }
  return out;
}

NormWeights norm_weights(const Norm& norm) {
  NormWeights made{norm.kind, floats_of(norm.weight), floats_of(norm.bias)};
  if (norm.plus_one) {
    for (float& weight : made.weight) weight += 1.0F;
  }
  return made;
}

std::vector<float> bias_of(const std::vector<Slice>& slices) {
  std::vector<float> bias;
  for (const Slice& slice : slices) {
    const std::vector<float> values = floats_of(slice.tensor);
    for (int i = 0; i < slice.rows; ++i) {
      const int row =
          slice.permuted_head_width > 0 ? unpermuted_row(i, slice.permuted_head_width) : i;
      bias.push_back(values.empty() ? 0.0F : values[static_cast<std::size_t>(slice.first + row)]);
    }
  }
  bias.resize((bias.size() + 7) / 8 * 8);
  return bias;
}

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

std::uint64_t weights_size(const Architecture& architecture, Compute compute) {
  std::uint64_t total = 0;
  const auto add = [&](const Linear& linear) {
    for (const Slice& slice : linear.weight) {
      const auto elements =
          static_cast<std::uint64_t>(slice.rows) * static_cast<std::uint64_t>(linear.inputs);
      total += compute == Compute::kReference ? elements * sizeof(float)
                                              : packed_bytes(slice.tensor->type, elements);
    }
  };
  add(architecture.output);
  for (const Tensor* tensor : {architecture.embedding, architecture.positions}) {
    if (tensor != nullptr) total += tensor->bytes.size();
  }
  for (const Layer& layer : architecture.layers) {
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
  return total;
}

Result<Weights> load_weights(const Architecture& architecture, Compute compute,
                             const Kernels& kernels, ForkJoin& pool,
                             const std::function<void(double)>& progress) {
  Weights weights;
  Loader loader(compute, kernels, pool, weights.memory);
  weights.output_norm = norm_weights(architecture.output_norm);
  KVFS_ASSIGN(weights.output, loader.projection(architecture.output));
  for (const Layer& from : architecture.layers) {
    KVFS_ASSIGN(LayerWeights layer, loader.layer(from));
    weights.layers.push_back(std::move(layer));
    if (progress) {
      progress(static_cast<double>(weights.layers.size()) /
               static_cast<double>(architecture.layers.size()));
    }
  }
  return weights;
}

}  // namespace kvfs::model::cpu

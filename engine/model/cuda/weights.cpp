#include "engine/model/cuda/weights.h"

#include <ATen/Parallel.h>

#include "engine/model/cuda/gguf_blocks.h"
#include "engine/model/dequantize.h"

namespace kvfs::model::cuda {
namespace {

WeightMatrix plain(at::Tensor data) {
  const bool fp16 = data.scalar_type() == at::kHalf;
  const Matrix matrix{data.data_ptr(), static_cast<int>(data.size(0)),
                      static_cast<int>(data.size(1)), fp16 ? WeightKind::kF16 : WeightKind::kBf16};
  return {std::move(data), matrix};
}

// Where an output's weights are in the file.
struct SourceRow {
  const Tensor* tensor;
  std::size_t row;
};
SourceRow source_row(const Linear& linear, int output) {
  for (const Slice& slice : linear.weight) {
    if (output < slice.rows) {
      const int in_order =
          slice.permuted_head_width ? unpermuted_row(output, slice.permuted_head_width) : output;
      return {slice.tensor, static_cast<std::size_t>(slice.first + in_order)};
    }
    output -= slice.rows;
  }
  return {linear.weight.front().tensor, 0};
}

class Loader {
 public:
  Loader(at::ScalarType type, at::Device device) : type_(type), device_(device) {}

  at::Tensor vector(const Tensor& tensor) const {
    at::Tensor out = at::empty({static_cast<std::int64_t>(tensor.dims[0])}, at::kFloat);
    dequantize_row(tensor.type, tensor.bytes,
                   {out.data_ptr<float>(), static_cast<std::size_t>(out.numel())});
    return out.to(device_);
  }

  // As the file has it where the fast mode can multiply that, else converted. paired: gate()'s.
  WeightMatrix matrix(const Linear& linear, bool paired = false) const {
    const auto kind = type_ == at::kBFloat16 ? packed_kind(linear) : std::nullopt;
    return kind ? packed(linear, *kind, paired) : plain(converted(linear));
  }

  // The slices' rows one below the other, a band at a time so that host memory stays small.
  at::Tensor converted(const Linear& linear) const {
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

  // A band of tiles at a time.
  WeightMatrix packed(const Linear& linear, WeightKind kind, bool paired) const {
    constexpr int kBandTiles = 256;
    const int outputs = linear.outputs();
    const int tiles = (outputs + kTileOutputs - 1) / kTileOutputs;
    const auto tile_bytes = static_cast<std::int64_t>(packed_tile_bytes(kind, linear.inputs));
    const auto bytes = at::TensorOptions().dtype(at::kByte);
    at::Tensor out = at::empty({tiles * tile_bytes}, bytes.device(device_));
    for (int begin = 0; begin < tiles; begin += kBandTiles) {
      const int count = std::min(kBandTiles, tiles - begin);
      const at::Tensor band = at::zeros({count * tile_bytes}, bytes);
      at::parallel_for(0, count, 1, [&](std::int64_t first, std::int64_t end) {
        for (std::int64_t tile = first; tile < end; ++tile) {
          pack_tile(linear, kind, paired, begin + static_cast<int>(tile),
                    band.data_ptr<std::uint8_t>() + tile * tile_bytes);
        }
      });
      out.narrow(0, begin * tile_bytes, count * tile_bytes).copy_(band);
    }
    const Matrix matrix{out.data_ptr(), outputs, linear.inputs, kind, paired};
    return {std::move(out), matrix};
  }
  static void pack_tile(const Linear& linear, WeightKind kind, bool paired, int tile,
                        std::uint8_t* to) {
    const int outputs = linear.outputs();
    for (int row = 0; row < kTileOutputs; ++row) {
      const int output = packed_output(tile, row, outputs, paired);
      if (output >= outputs) continue;
      const SourceRow from = source_row(linear, output);
      const ByteSpan source = row_of(*from.tensor, from.row);
      for (int index = 0; index * kPackedBlock < linear.inputs; ++index) {
        pack_block(kind, weight_block(from.tensor->type, source, index, kind), row, index, to);
      }
    }
  }

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

std::uint64_t weights_size(const Architecture& model, at::ScalarType type) {
  const std::uint64_t element = type == at::kFloat ? 4 : 2;
  const auto of = [&](const Linear& linear) -> std::uint64_t {
    const auto kind = type == at::kBFloat16 ? packed_kind(linear) : std::nullopt;
    if (kind) return packed_bytes(*kind, linear.outputs(), linear.inputs);
    return element * static_cast<std::uint64_t>(linear.outputs()) *
           static_cast<std::uint64_t>(linear.inputs);
  };
  std::uint64_t bytes =
      element * static_cast<std::uint64_t>(model.vocab) * static_cast<std::uint64_t>(model.width);
  if (!model.tied() || (type == at::kBFloat16 && packed_kind(model.output))) {
    bytes += of(model.output);
  }
  for (const Layer& layer : model.layers) {
    const FeedForward& ffn = layer.experts.front();
    bytes += of(layer.qkv) + of(layer.attn_out) + of(ffn.up) + of(ffn.down);
  }
  return bytes;
}

Weights random_weights(const LlamaSizes& s, bool tied, at::ScalarType type, WeightKind kind,
                       at::Device device) {
  const auto noise = [&](std::int64_t rows, std::int64_t columns) {
    return at::empty({rows, columns}, at::TensorOptions().dtype(type).device(device))
        .normal_(0.0, 0.02);
  };
  // Packed: whatever numbers and scales a normal distribution's bits are.
  const auto random = [&](int rows, int columns, bool paired = false) -> WeightMatrix {
    if (!is_packed(kind)) return plain(noise(rows, columns));
    at::Tensor data = noise(
        1, static_cast<std::int64_t>(packed_bytes(kind, rows, columns) / sizeof(std::uint16_t)));
    const Matrix matrix{data.data_ptr(), rows, columns, kind, paired};
    return {std::move(data), matrix};
  };
  const auto ones = [&] {
    return at::ones({s.width}, at::TensorOptions().dtype(at::kFloat).device(device));
  };
  Weights weights;
  weights.embedding = noise(s.vocab, s.width);
  weights.output = tied && !is_packed(kind) ? plain(weights.embedding) : random(s.vocab, s.width);
  weights.output_norm = ones();
  const at::Tensor pairs = at::arange(s.head_width / 2, at::kDouble);
  weights.frequencies = at::pow(500000.0, pairs * (-2.0 / s.head_width)).to(at::kFloat).to(device);
  const int heads = s.heads * s.head_width;
  for (int i = 0; i < s.layers; ++i) {
    weights.layers.push_back({.attn_norm = ones(),
                              .qkv = random(heads + 2 * s.kv_heads * s.head_width, s.width),
                              .out = random(s.width, heads),
                              .ffn_norm = ones(),
                              .gate_up = random(2 * s.ffn_width, s.width, is_packed(kind)),
                              .down = random(s.width, s.ffn_width)});
  }
  return weights;
}

Weights load_weights(const Architecture& model, at::ScalarType type, at::Device device,
                     const std::function<void(double)>& progress) {
  const Loader load(type, device);
  Weights weights;
  const Slice embedding{.tensor = model.embedding, .rows = model.vocab};
  weights.embedding = load.converted({.inputs = model.width, .weight = {embedding}});
  const bool shared = model.tied() && (type != at::kBFloat16 || !packed_kind(model.output));
  weights.output = shared ? plain(weights.embedding) : load.matrix(model.output);
  weights.output_norm = load.vector(*model.output_norm.weight);
  weights.frequencies =
      at::tensor(at::ArrayRef<float>(model.ropes.front().frequencies), at::kFloat).to(device);
  for (const Layer& layer : model.layers) {
    weights.layers.push_back({
        .attn_norm = load.vector(*layer.attn_norm.weight),
        .qkv = load.matrix(layer.qkv),
        .out = load.matrix(layer.attn_out),
        .ffn_norm = load.vector(*layer.ffn_norm.weight),
        .gate_up = load.matrix(layer.experts.front().up, true),
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

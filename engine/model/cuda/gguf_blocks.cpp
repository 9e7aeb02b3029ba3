#include "engine/model/cuda/gguf_blocks.h"

#include <cstring>

#include "engine/model/dequantize.h"

namespace kvfs::model::cuda {
namespace {

using container::GgmlType;

std::uint16_t half_at(const std::uint8_t* at) {
  std::uint16_t bits = 0;
  std::memcpy(&bits, at, sizeof(bits));
  return bits;
}

// Of Q4_0 and Q4_1: the low halves of 16 bytes are the first 16 numbers; less `zero`.
void take_nibbles(const std::uint8_t* from, int zero, WeightBlock& out) {
  for (std::size_t i = 0; i < 16; ++i) {
    out.numbers[i] = static_cast<std::int8_t>((from[i] & 15) - zero);
    out.numbers[16 + i] = static_cast<std::int8_t>((from[i] >> 4) - zero);
  }
}

WeightBlock q4_k_block(const std::uint8_t* row, int index) {
  const std::uint8_t* block = row + index / 8 * static_cast<int>(block_bytes(GgmlType::kQ4_K));
  const int group = index % 8;
  const KScale scale = k_scale(block + 4, static_cast<std::size_t>(group));
  WeightBlock out{};
  const std::uint8_t* numbers = block + 16 + group / 2 * 32;
  for (std::size_t i = 0; i < 32; ++i) {
    out.numbers[i] = static_cast<std::int8_t>(group % 2 == 0 ? numbers[i] & 15 : numbers[i] >> 4);
  }
  out.scale = float_to_fp16(fp16_to_float(half_at(block)) * static_cast<float>(scale.scale));
  out.minimum =
      float_to_fp16(-fp16_to_float(half_at(block + 2)) * static_cast<float>(scale.minimum));
  return out;
}

}  // namespace

std::optional<WeightKind> packed_kind(const Linear& linear) {
  std::optional<WeightKind> out;
  for (const Slice& slice : linear.weight) {
    WeightKind kind{};
    if (slice.tensor == nullptr || slice.transposed) return std::nullopt;
    switch (slice.tensor->type) {
      case GgmlType::kQ4_0:
        kind = WeightKind::kInt4;
        break;
      case GgmlType::kQ4_1:
      case GgmlType::kQ4_K:
        kind = WeightKind::kInt4Min;
        break;
      case GgmlType::kQ8_0:
        kind = WeightKind::kInt8;
        break;
      default:
        return std::nullopt;
    }
    if (out && *out != kind) {
      if (*out == WeightKind::kInt8 || kind == WeightKind::kInt8) return std::nullopt;
      kind = WeightKind::kInt4Min;  // a minimum of −8 scales is Q4_0
    }
    out = kind;
  }
  return out;
}

WeightBlock weight_block(GgmlType type, ByteSpan row, int index, WeightKind kind) {
  if (type == GgmlType::kQ4_K) return q4_k_block(row.data(), index);
  const std::uint8_t* block = row.data() + index * static_cast<int>(block_bytes(type));
  WeightBlock out{};
  out.scale = half_at(block);
  switch (type) {
    case GgmlType::kQ4_0:
      take_nibbles(block + 2, kind == WeightKind::kInt4 ? 8 : 0, out);
      if (kind == WeightKind::kInt4Min) {
        out.minimum = float_to_fp16(-8.0F * fp16_to_float(out.scale));
      }
      break;
    case GgmlType::kQ4_1:
      out.minimum = half_at(block + 2);
      take_nibbles(block + 4, 0, out);
      break;
    default:  // Q8_0
      std::memcpy(out.numbers.data(), block + 2, out.numbers.size());
  }
  return out;
}

}  // namespace kvfs::model::cuda

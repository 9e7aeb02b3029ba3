#include "engine/model/cuda/page_shape.h"

#include <algorithm>
#include <string>
#include <utility>

namespace kvfs::model::cuda {

PageShape::PageShape(std::vector<LayerShape> of, int kv_heads_in, int width_in, DType dtype_in)
    : kinds(std::move(of)),
      layers(static_cast<int>(kinds.size())),
      kv_heads(kv_heads_in),
      width(width_in),
      dtype(dtype_in) {
  for (int i = 0; i < layers; ++i) {
    begins.push_back(elements);
    elements += convolves(i) ? std::int64_t{kind(i).kept} * kind(i).key_width : 2 * side_elements();
    kept = std::min<int>(kept, kind(i).kept);
  }
}

KvPiece PageShape::inputs(std::uint16_t layer, Position first, int count, ByteSpan rows) const {
  const LayerShape& of = kind(layer);
  KvPiece piece{.layer = layer,
                .head_begin = 0,
                .head_count = of.kv_heads,
                .positions = {},
                .key = {},
                .value = {},
                .kind = of.kind};
  const std::size_t row = input_bytes(layer, 1);
  for (int slot = std::max(0, count - of.kept); slot < count; ++slot) {
    piece.positions.push_back(first + slot);
    const auto at = rows.begin() + static_cast<std::ptrdiff_t>(row) * (slot % of.kept);
    piece.key.insert(piece.key.end(), at, at + static_cast<std::ptrdiff_t>(row));
  }
  return piece;
}

Bytes PageShape::rows_of(const KvPiece& piece) const {
  const std::size_t row = input_bytes(piece.layer, 1);
  Bytes rows(piece.key.size());
  for (std::size_t i = 0; i < piece.positions.size(); ++i) {
    const int slot = piece.positions[i] % kBlockTokens;
    const auto at = static_cast<std::size_t>(slot % kind(piece.layer).kept);
    std::copy_n(piece.key.begin() + static_cast<std::ptrdiff_t>(i * row), row,
                rows.begin() + static_cast<std::ptrdiff_t>(at * row));
  }
  return rows;
}

Status PageShape::check_place(int layer, int head_begin, int head_count,
                              std::span<const Position> positions) const {
  const std::string what = "KV of layer " + std::to_string(layer);
  const bool known = layer < layers;
  if (!known || head_count == 0 || head_begin + head_count > kind(layer).kv_heads ||
      positions.empty() || positions.size() > kind(layer).kept || positions[0] < 0) {
    return fail(ErrorCode::kInvalid, what, "layer, heads or positions outside of the model's");
  }
  const auto not_rising = [](Position a, Position b) { return b <= a; };
  if (std::ranges::adjacent_find(positions, not_rising) != positions.end() ||
      positions.front() / kBlockTokens != positions.back() / kBlockTokens) {
    return fail(ErrorCode::kInvalid, what, "its positions do not rise inside one block");
  }
  return {};
}

Status PageShape::check(const KvPiece& piece) const {
  const auto& positions = piece.positions;
  KVFS_TRY(check_place(piece.layer, piece.head_begin, piece.head_count, positions));
  const std::string what = "KV of layer " + std::to_string(piece.layer);
  const LayerShape& of = kind(piece.layer);
  if (piece.kind != of.kind) {
    return fail(ErrorCode::kUnsupported, what, "it is of another kind than the model's layer");
  }
  const std::size_t rows = piece.head_count * positions.size() * size_of(dtype);
  if (piece.key.size() != rows * of.key_width || piece.value.size() != rows * of.value_width) {
    return fail(ErrorCode::kInvalid, what,
                "the bytes are not heads × positions × width of the model's KV type");
  }
  const int run = positions.back() - positions.front() + 1;
  const int whole = std::min<int>(positions.back() % kBlockTokens + 1, of.kept);
  if (convolves() && (run != whole || std::cmp_not_equal(run, positions.size()))) {
    return fail(ErrorCode::kUnsupported, what, "positions are missing inside the block",
                "a model with convolutions takes whole blocks only");
  }
  return {};
}

}  // namespace kvfs::model::cuda

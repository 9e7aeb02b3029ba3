#include "engine/store/layer_reader.h"

#include <algorithm>
#include <cstring>

namespace kvfs::store {
namespace {

constexpr std::uint64_t kMostHeader = std::uint64_t{1} << 20;

tl::unexpected<Error> cut_short(const std::string& name, std::uint64_t size) {
  return fail(ErrorCode::kCorrupt, name, "it ends after " + std::to_string(size) + " bytes",
              "copy the file again");
}

Result<Bytes> read_exactly(FileView& file, std::uint64_t offset, std::uint64_t size,
                           const std::string& name) {
  Bytes bytes(size);
  KVFS_ASSIGN(const std::size_t got, file.read(offset, bytes));
  if (got == size) return bytes;
  return cut_short(name, offset + got);
}

}  // namespace

tl::unexpected<Error> LayerReader::wrong(std::string why) const {
  std::string number = std::to_string(layer_);
  number.insert(0, number.size() < 3 ? 3 - number.size() : 0, '0');
  return fail(ErrorCode::kInvalid, "kv/layer-" + number + ".safetensors", std::move(why),
              "copy the file again");
}

Result<LayerReader> LayerReader::open(FileView& file, std::uint16_t layer, const LayerShape& shape,
                                      DType dtype) {
  LayerReader reader(file, layer, shape, dtype);
  if (file.size() < 8) return reader.wrong("it is not a safetensors file: it has no header");
  const std::string name = "layer " + std::to_string(layer);
  KVFS_ASSIGN(const Bytes length, read_exactly(file, 0, 8, name));
  std::uint64_t header = 0;
  std::memcpy(&header, length.data(), sizeof header);
  if (header > kMostHeader || 8 + header > file.size()) {
    return reader.wrong("it is not a safetensors file: its header's length lies");
  }
  KVFS_ASSIGN(const Bytes front, read_exactly(file, 0, 8 + header, name));
  auto parsed = container::parse_safetensors_header(front, file.size());
  if (!parsed) return reader.wrong(parsed.error().message());
  reader.header_ = *std::move(parsed);
  KVFS_TRY(reader.find_tensors());
  KVFS_TRY(reader.read_positions());
  reader.key_ = reader.value_ = nullptr;  // into a header that moves
  return reader;
}

Result<const container::TensorEntry*> LayerReader::tensor(std::string_view name,
                                                          DType dtype) const {
  const auto it = std::ranges::find(header_.tensors, name, &container::TensorEntry::name);
  if (it == header_.tensors.end()) return wrong("it has no tensor " + std::string(name));
  if (it->dtype != dtype) {
    return wrong("tensor " + std::string(name) + " is " + std::string(name_of(it->dtype)) +
                 ", not " + std::string(name_of(dtype)));
  }
  return &*it;
}

// [1, heads, T, width], [T, width] of one head, or ragged [N, width]: rows of `width` in all.
Status LayerReader::check_shape(const container::TensorEntry& tensor, std::uint64_t width) const {
  std::uint64_t rows = 0;
  for (const std::uint32_t length : lengths_) rows += length;
  const bool fits = !tensor.shape.empty() && tensor.shape.back() == width &&
                    tensor.end - tensor.begin == rows * width * size_of(dtype_);
  if (fits) return {};
  return wrong("tensor " + tensor.name + " has another shape than its positions and the model");
}

Status LayerReader::find_tensors() {
  const bool convolution = shape_.kind == LayerKind::kConvolution;
  KVFS_ASSIGN(const auto* positions, tensor("positions", DType::kI32));
  const std::uint64_t count = (positions->end - positions->begin) / sizeof(Position);
  const auto ragged =
      std::ranges::find(header_.tensors, "head_offsets", &container::TensorEntry::name);
  starts_.assign(shape_.kv_heads, 0);
  lengths_.assign(shape_.kv_heads, 0);
  if (ragged == header_.tensors.end()) {
    const bool own = positions->shape.size() == 2;
    const std::uint64_t length = own ? count / std::max<std::uint64_t>(1, shape_.kv_heads) : count;
    if (own && positions->shape.front() != shape_.kv_heads) {
      return wrong("its positions are those of another number of heads");
    }
    for (std::size_t head = 0; head < starts_.size(); ++head) {
      starts_[head] = head * length;
      lengths_[head] = static_cast<std::uint32_t>(length);
    }
  } else {
    const std::string name = "head_offsets of layer " + std::to_string(layer_);
    const std::uint64_t size = (starts_.size() + 1) * sizeof(std::int32_t);
    if (ragged->dtype != DType::kI32 || ragged->end - ragged->begin != size) {
      return wrong("head_offsets are those of another number of heads");
    }
    KVFS_ASSIGN(const Bytes bytes,
                read_exactly(*file_, header_.data_offset + ragged->begin, size, name));
    std::vector<std::int32_t> offsets(starts_.size() + 1);
    std::memcpy(offsets.data(), bytes.data(), size);
    if (offsets.front() != 0 || !std::ranges::is_sorted(offsets) ||
        static_cast<std::uint64_t>(offsets.back()) != count) {
      return wrong("head_offsets do not fit the positions");
    }
    for (std::size_t head = 0; head < starts_.size(); ++head) {
      starts_[head] = static_cast<std::uint64_t>(offsets[head]);
      lengths_[head] = static_cast<std::uint32_t>(offsets[head + 1] - offsets[head]);
    }
  }
  KVFS_ASSIGN(const auto* key, tensor(convolution ? "conv" : "key", dtype_));
  KVFS_TRY(check_shape(*key, shape_.key_width));
  if (shape_.value_width == 0) return {};
  KVFS_ASSIGN(const auto* value, tensor("value", dtype_));
  return check_shape(*value, shape_.value_width);
}

Status LayerReader::read_positions() {
  KVFS_ASSIGN(const auto* entry, tensor("positions", DType::kI32));
  const std::uint64_t size = entry->end - entry->begin;
  KVFS_ASSIGN(const Bytes bytes, read_exactly(*file_, header_.data_offset + entry->begin, size,
                                              "positions of layer " + std::to_string(layer_)));
  std::vector<Position> all(size / sizeof(Position));
  if (!all.empty()) std::memcpy(all.data(), bytes.data(), all.size() * sizeof(Position));
  const bool shared = entry->shape.size() == 1 &&
                      std::ranges::find(header_.tensors, "head_offsets",
                                        &container::TensorEntry::name) == header_.tensors.end();
  for (std::size_t head = 0; head < starts_.size(); ++head) {
    const auto first = static_cast<std::ptrdiff_t>(shared ? 0 : starts_[head]);
    auto& mine = positions_.emplace_back(all.begin() + first, all.begin() + first + lengths_[head]);
    const bool ascends = std::ranges::adjacent_find(mine, std::greater_equal{}) == mine.end();
    if (!ascends || (!mine.empty() && mine.front() < 0)) {
      return wrong("the positions of head " + std::to_string(head) + " do not ascend");
    }
  }
  next_.assign(starts_.size(), 0);
  return {};
}

Status LayerReader::add_rows(const container::TensorEntry& tensor, std::size_t row_bytes,
                             std::size_t head, std::size_t count, Bytes& to) {
  const std::size_t before = to.size(), size = count * row_bytes;
  if (before == 0) to.reserve(size * (starts_.size() - head));  // the other heads mostly follow
  to.resize(before + size);
  const std::uint64_t offset =
      header_.data_offset + tensor.begin + (starts_[head] + next_[head]) * row_bytes;
  KVFS_ASSIGN(const std::size_t got, file_->read(offset, MutableByteSpan(to).subspan(before)));
  if (got == size) return {};
  return cut_short("layer " + std::to_string(layer_), offset + got);
}

Result<std::vector<KvPiece>> LayerReader::block(std::int32_t index) {
  KVFS_ASSIGN(key_, tensor(shape_.kind == LayerKind::kConvolution ? "conv" : "key", dtype_));
  if (shape_.value_width != 0) {
    KVFS_ASSIGN(value_, tensor("value", dtype_));
  }
  std::vector<KvPiece> pieces;
  const Position end = (index + 1) * kBlockTokens;
  for (std::size_t head = 0; head < starts_.size(); ++head) {
    const auto begin = positions_[head].begin() + static_cast<std::ptrdiff_t>(next_[head]);
    const std::vector<Position> mine(begin, std::lower_bound(begin, positions_[head].end(), end));
    if (pieces.empty() || pieces.back().positions != mine) {
      pieces.push_back({.layer = layer_,
                        .head_begin = static_cast<std::uint16_t>(head),
                        .positions = mine,
                        .kind = shape_.kind});
    }
    KvPiece& piece = pieces.back();
    ++piece.head_count;
    const std::size_t element = size_of(dtype_);
    KVFS_TRY(add_rows(*key_, shape_.key_width * element, head, mine.size(), piece.key));
    if (value_ != nullptr) {
      KVFS_TRY(add_rows(*value_, shape_.value_width * element, head, mine.size(), piece.value));
    }
    next_[head] += mine.size();
  }
  return pieces;
}

Status LayerReader::expect_end() const {
  for (std::size_t head = 0; head < next_.size(); ++head) {
    if (next_[head] != lengths_[head]) return wrong("it has positions beyond the last token");
  }
  return {};
}

}  // namespace kvfs::store

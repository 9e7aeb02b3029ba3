// One kv/layer-NNN.safetensors, read back: which rows of which head lie in a block. One thread.
#pragma once

#include <string>
#include <vector>

#include "codec/container/safetensors.h"
#include "engine/store/views.h"

namespace kvfs::store {

class LayerReader {
 public:
  // Its tensors' names, types and shapes are those of the layer; kInvalid or kCorrupt name the
  // file.
  static Result<LayerReader> open(FileView& file, std::uint16_t layer, const LayerShape& shape,
                                  DType dtype);

  // Positions held, one number a head.
  const std::vector<std::uint32_t>& lengths() const { return lengths_; }
  // The pieces of a block, heads that hold the same positions together. Blocks in ascending order.
  Result<std::vector<KvPiece>> block(std::int32_t index);
  Status expect_end() const;  // every row lay in a block that was asked for

 private:
  LayerReader(FileView& file, std::uint16_t layer, const LayerShape& shape, DType dtype)
      : file_(&file), layer_(layer), shape_(shape), dtype_(dtype) {}
  Status find_tensors();
  Status read_positions();
  Status check_shape(const container::TensorEntry& tensor, std::uint64_t width) const;
  // The head's next `count` rows, to the end of `to`.
  Status add_rows(const container::TensorEntry& tensor, std::size_t row_bytes, std::size_t head,
                  std::size_t count, Bytes& to);
  Result<const container::TensorEntry*> tensor(std::string_view name, DType dtype) const;
  tl::unexpected<Error> wrong(std::string why) const;

  FileView* file_;
  std::uint16_t layer_;
  LayerShape shape_;
  DType dtype_;
  container::SafetensorsHeader header_;
  const container::TensorEntry* key_ = nullptr;
  const container::TensorEntry* value_ = nullptr;  // null: none
  std::vector<std::uint64_t> starts_;              // first row of each head in the file
  std::vector<std::uint32_t> lengths_;
  std::vector<std::vector<Position>> positions_;  // by head
  std::vector<std::size_t> next_;                 // row of each head not given out yet
};

}  // namespace kvfs::store

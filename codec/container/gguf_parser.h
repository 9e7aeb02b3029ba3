// The parser behind GgufFile::open: a cursor that never leaves the mapping and names what it was
// reading when it fails. Used by one thread, for the time of one open; owns nothing.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "codec/container/gguf.h"

namespace kvfs::container {

// What a value is, as files number it; never renumber.
enum class GgufKind : std::uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

class GgufParser {
 public:
  // Fills the file's metadata and tensors from its mapping.
  explicit GgufParser(GgufFile& file) : file_(file), bytes_(file.mapping_.bytes()) {}
  Status parse();

 private:
  Status parse_header();
  Status parse_metadata();
  Status parse_tensors();
  Status place_tensors();  // checks offsets and sizes, and points the tensors into the mapping

  Result<GgufValue> value(GgufKind kind);
  Result<GgufArray> array();
  template <class T>
  Status array_of_integers(GgufArray& out, std::uint64_t count);
  template <class T>
  Status array_of_reals(GgufArray& out, std::uint64_t count);
  Status array_of_booleans(GgufArray& out, std::uint64_t count);
  Status array_of_strings(GgufArray& out, std::uint64_t count);
  Result<GgufTensor> tensor_entry(std::uint64_t& offset);
  Status read_alignment();

  template <class T>
  Result<T> number(std::string_view part);
  Result<std::string_view> text(std::string_view part, std::uint64_t limit);

  std::uint64_t left() const { return bytes_.size() - at_; }
  // "PATH: field: reason", field being the entry at hand and the part of it.
  tl::unexpected<Error> refuse(std::string_view part, std::string reason) const;
  tl::unexpected<Error> refuse_as(ErrorCode code, std::string_view part, std::string reason,
                                  std::string way_out) const;

  GgufFile& file_;
  ByteSpan bytes_;
  std::uint64_t at_ = 0;
  std::string entry_ = "header";  // what is being read: "metadata key 'x'", "tensor 'y'"
  std::uint64_t key_count_ = 0;
  std::uint64_t tensor_count_ = 0;
  std::uint64_t alignment_ = 32;
  std::vector<std::uint64_t> offsets_;  // one a tensor, from the start of the data area
};

}  // namespace kvfs::container

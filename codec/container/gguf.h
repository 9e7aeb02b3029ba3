// GGUF files, versions 2 and 3: metadata and tensor directory, memory-mapped, every field checked
// before use (format: the ggml project's docs/gguf.md).
//
// open() validates magic, version, counts, string and array lengths, alignment, tensor kinds,
// dimensions and that each tensor's bytes lie inside the file; afterwards nothing can read out of
// bounds. No allocation is larger than the file justifies; nested arrays are refused (GgufArray could
// not hold them, no published model has them, and ggml's own reader refuses them too).
// Errors name the file, the field and the reason. Immutable after open: any thread may read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "codec/base/bytes.h"
#include "codec/container/mapped_file.h"

namespace kvfs::container {

// ggml's numbers; never renumber. Others exist in files and are refused by name or number.
enum class GgmlType : std::uint32_t {
  kF32 = 0, kF16 = 1, kQ4_0 = 2, kQ4_1 = 3, kQ5_0 = 6, kQ5_1 = 7, kQ8_0 = 8,
  kQ4_K = 12, kQ5_K = 13, kQ6_K = 14, kBF16 = 30,
};
std::string_view name_of(GgmlType type);
std::size_t block_elements(GgmlType type);  // 1, 32 or 256
std::size_t block_bytes(GgmlType type);     // bytes of one such block

struct GgufArray;
using GgufValue = std::variant<std::uint64_t, std::int64_t, double, bool, std::string, GgufArray>;
struct GgufArray {  // homogeneous; integers widened
  std::vector<std::string> strings;
  std::vector<std::int64_t> integers;  // also booleans
  std::vector<double> reals;
};

struct GgufTensor {
  std::string name;
  GgmlType type = GgmlType::kF32;
  std::vector<std::uint64_t> dims;  // ggml order: dims[0] is the contiguous one (columns), 1 to 4 of them
  ByteSpan bytes;                   // inside the mapping
};

class GgufFile {
 public:
  static Result<std::unique_ptr<GgufFile>> open(const std::filesystem::path& path);
  GgufFile(const GgufFile&) = delete;
  GgufFile& operator=(const GgufFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  const std::map<std::string, GgufValue>& metadata() const { return metadata_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  const GgufTensor* find_tensor(std::string_view name) const;  // null when absent
  ByteSpan file_bytes() const { return mapping_.bytes(); }
  void release_pages() const { mapping_.release_pages(); }

  // Typed getters: kNotFound or kInvalid say file, key and what was expected.
  Result<std::uint64_t> unsigned_at(const std::string& key) const;
  Result<double> real_at(const std::string& key) const;  // integers convert
  Result<bool> bool_at(const std::string& key) const;
  Result<std::string> string_at(const std::string& key) const;
  Result<const GgufArray*> array_at(const std::string& key) const;
  bool has(const std::string& key) const { return metadata_.contains(key); }

 private:
  GgufFile() = default;
  friend class GgufParser;
  std::filesystem::path path_;
  MappedFile mapping_;
  std::map<std::string, GgufValue> metadata_;
  std::vector<GgufTensor> tensors_;
  std::unordered_map<std::string_view, std::size_t> tensor_index_;  // names as they lie in the mapping
};

}  // namespace kvfs::container

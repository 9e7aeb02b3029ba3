// A safetensors file in memory: its header, checked in full, and its tensors' bytes. Immutable, any
// thread. Errors name the file and the field.
#pragma once

#include <filesystem>
#include <memory>

#include "codec/container/mapped_file.h"
#include "codec/container/safetensors.h"

namespace kvfs::container {

class SafetensorsFile {
 public:
  static Result<std::unique_ptr<SafetensorsFile>> open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  const SafetensorsHeader& header() const { return header_; }
  ByteSpan file_bytes() const { return mapping_.bytes(); }
  void release_pages() const { mapping_.release_pages(); }
  // Row-major, inside the mapping.
  ByteSpan bytes_of(const TensorEntry& tensor) const;

 private:
  SafetensorsFile() = default;
  std::filesystem::path path_;
  MappedFile mapping_;
  SafetensorsHeader header_;
};

}  // namespace kvfs::container

#include "codec/container/safetensors_file.h"

namespace kvfs::container {

Result<std::unique_ptr<SafetensorsFile>> SafetensorsFile::open(const std::filesystem::path& path) {
  std::unique_ptr<SafetensorsFile> file(new SafetensorsFile);
  const std::string what = "model file " + path.string();
  file->path_ = path;
  KVFS_ASSIGN(file->mapping_, MappedFile::open(path, what));
  auto header = parse_safetensors_header(file->file_bytes(), file->file_bytes().size());
  if (!header) {
    const Error& error = header.error();
    return fail(error.code, what, error.what + ", " + error.why, "get the file again");
  }
  file->header_ = *std::move(header);
  return file;
}

ByteSpan SafetensorsFile::bytes_of(const TensorEntry& tensor) const {
  return file_bytes().subspan(header_.data_offset + tensor.begin, tensor.end - tensor.begin);
}

}  // namespace kvfs::container

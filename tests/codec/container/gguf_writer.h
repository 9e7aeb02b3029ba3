// Writes GGUF files for tests, good ones and lying ones: every field is the caller's.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "codec/base/bytes.h"

namespace kvfs::container {

class GgufWriter {
 public:
  GgufWriter& header(std::uint64_t tensors, std::uint64_t keys, std::uint32_t version = 3) {
    out_.raw(as_bytes("GGUF"));
    out_.number(version);
    out_.number(tensors);
    out_.number(keys);
    return *this;
  }
  GgufWriter& text(std::string_view value) {
    out_.number(std::uint64_t{value.size()});
    out_.raw(as_bytes(value));
    return *this;
  }
  template <class T>
  GgufWriter& number(T value) {
    out_.number(value);
    return *this;
  }
  // A key's name and kind; its value comes next.
  GgufWriter& key(std::string_view name, std::uint32_t kind) { return text(name).number(kind); }
  GgufWriter& array(std::uint32_t kind, std::uint64_t count) { return number(kind).number(count); }
  GgufWriter& tensor(std::string_view name, std::initializer_list<std::uint64_t> dims,
                     std::uint32_t type, std::uint64_t offset) {
    text(name).number(static_cast<std::uint32_t>(dims.size()));
    for (const std::uint64_t dim : dims) number(dim);
    return number(type).number(offset);
  }
  GgufWriter& pad(std::size_t alignment = 32) {
    while (out_.bytes().size() % alignment != 0) number(std::uint8_t{0});
    return *this;
  }
  GgufWriter& data(std::size_t size, std::uint8_t value = 0x5a) {
    out_.raw(Bytes(size, value));
    return *this;
  }
  const Bytes& bytes() const { return out_.bytes(); }

 private:
  ByteWriter out_;
};

// A file of the test's own, gone with it.
class FileOf {
 public:
  FileOf(std::string_view name, ByteSpan bytes)
      : path_(std::filesystem::temp_directory_path() /
              ("kvfs-" + std::to_string(::getpid()) + "-" + std::string(name))) {
    write(bytes);
  }
  ~FileOf() { std::filesystem::remove(path_); }
  FileOf(const FileOf&) = delete;
  FileOf& operator=(const FileOf&) = delete;

  void write(ByteSpan bytes) const { std::ofstream(path_, std::ios::binary) << as_text(bytes); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// One key of every kind and two tensors.
inline Bytes small_gguf() {
  GgufWriter file;
  file.header(2, 15);
  file.key("general.architecture", 8).text("llama");
  file.key("general.alignment", 4).number(std::uint32_t{64});
  file.key("u8", 0).number(std::uint8_t{200});
  file.key("i8", 1).number(std::int8_t{-100});
  file.key("u16", 2).number(std::uint16_t{60000});
  file.key("i16", 3).number(std::int16_t{-30000});
  file.key("i32", 5).number(std::int32_t{-7});
  file.key("f32", 6).number(0.5F);
  file.key("bool", 7).number(std::uint8_t{1});
  file.key("u64", 10).number(std::uint64_t{1} << 63);
  file.key("i64", 11).number(std::int64_t{-1});
  file.key("f64", 12).number(0.1);
  file.key("texts", 9).array(8, 2).text("a").text("bc");
  file.key("numbers", 9)
      .array(5, 3)
      .number(std::int32_t{-1})
      .number(std::int32_t{2})
      .number(std::int32_t{3});
  file.key("reals", 9).array(6, 1).number(1.5F);
  file.tensor("norm", {4}, 0, 0);
  file.tensor("weight", {32, 3}, 3, 64);
  file.pad(64).data(16, 1).pad(64).data(60, 2);
  return file.bytes();
}

}  // namespace kvfs::container

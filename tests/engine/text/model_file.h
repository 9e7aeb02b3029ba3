// Model files for tests: the default model, and tiny made-up GGUF files of metadata alone.
#pragma once

#include <bit>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <unistd.h>

#include "codec/base/bytes.h"
#include "codec/container/gguf.h"
#include "engine/text/tokenizer.h"

namespace kvfs::text {

inline std::filesystem::path default_model_path() {
  if (const char* path = std::getenv("KVFS_MODEL")) return path;
  return std::filesystem::path(KVFS_DEPS_DIR) / "models/SmolLM2-135M-Instruct.Q4_1.gguf";
}

// Fails the test with the way out where the model is missing.
inline std::unique_ptr<container::GgufFile> open_default_model() {
  auto file = container::GgufFile::open(default_model_path());
  if (!file) {
    ADD_FAILURE() << file.error().message() << " (run scripts/setup, or set KVFS_MODEL)";
    return nullptr;
  }
  return *std::move(file);
}

// The bytes of a GGUF 3 file with metadata and no tensors.
class GgufBytes {
 public:
  GgufBytes& text(const std::string& key, const std::string& value) {
    return entry(key, 8, [&] { string(value); });
  }
  GgufBytes& number(const std::string& key, std::uint32_t value) {
    return entry(key, 4, [&] { body_.number(value); });
  }
  GgufBytes& boolean(const std::string& key, bool value) {
    return entry(key, 7, [&] { body_.number(static_cast<std::uint8_t>(value)); });
  }
  GgufBytes& texts(const std::string& key, const std::vector<std::string>& values) {
    return entry(key, 9, [&] {
      body_.number(std::uint32_t{8});
      body_.number(std::uint64_t{values.size()});
      for (const std::string& value : values) string(value);
    });
  }
  GgufBytes& numbers(const std::string& key, const std::vector<std::int32_t>& values) {
    return entry(key, 9, [&] {
      body_.number(std::uint32_t{5});
      body_.number(std::uint64_t{values.size()});
      for (const std::int32_t value : values) body_.number(value);
    });
  }

  GgufBytes& reals(const std::string& key, const std::vector<float>& values) {
    return entry(key, 9, [&] {
      body_.number(std::uint32_t{6});
      body_.number(std::uint64_t{values.size()});
      for (const float value : values) body_.number(std::bit_cast<std::uint32_t>(value));
    });
  }

  // Writes it to a file of this process, opens that, and removes it again.
  Result<std::unique_ptr<container::GgufFile>> open() const {
    ByteWriter head;
    head.number(std::uint32_t{0x46554747});  // GGUF
    head.number(std::uint32_t{3});
    head.number(std::uint64_t{0});
    head.number(count_);
    const auto path = std::filesystem::temp_directory_path() /
                      ("kvfs-text-" + std::to_string(getpid()) + ".gguf");
    std::ofstream(path, std::ios::binary) << as_text(head.bytes()) << as_text(body_.bytes());
    auto file = container::GgufFile::open(path);
    std::filesystem::remove(path);
    return file;
  }

 private:
  template <class Value>
  GgufBytes& entry(const std::string& key, std::uint32_t type, Value value) {
    string(key);
    body_.number(type);
    value();
    ++count_;
    return *this;
  }
  void string(const std::string& value) {
    body_.number(std::uint64_t{value.size()});
    body_.raw(as_bytes(value));
  }

  ByteWriter body_;
  std::uint64_t count_ = 0;
};

}  // namespace kvfs::text

// A model's files: a GGUF file, or a Hugging Face folder (config.json, safetensors in one piece or
// sharded by model.safetensors.index.json). Either way a directory of tensors, memory-mapped.
//
// open() checks every header in full; errors name the file, the field and the reason. Immutable,
// any thread. Tensors and their bytes live as long as the Checkpoint.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "codec/container/gguf.h"
#include "codec/container/safetensors_file.h"
#include "engine/model/fields.h"

namespace kvfs::model {

// As GGUF describes one: dims[0] is the contiguous dimension. A safetensors tensor of shape
// [outputs, inputs] has dims {inputs, outputs}; only its F32, F16 and BF16 appear here.
using Tensor = container::GgufTensor;

class Checkpoint {
 public:
  static Result<std::unique_ptr<Checkpoint>> open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  std::string what() const { return "model " + path_.string(); }   // for errors
  const container::GgufFile* gguf() const { return gguf_.get(); }  // null: a Hugging Face folder
  const std::vector<Tensor>& tensors() const;
  const Tensor* find(std::string_view name) const;  // null when absent

  // general.architecture, or config.json's model_type.
  const std::string& family() const { return family_; }
  const Fields& fields() const { return fields_; }
  const std::string& config_text() const { return config_text_; }  // config.json; "" of a GGUF

  // The mapped weights leave this process's memory until they are read again.
  void release_pages() const;

  // The files whose bytes make the fingerprint: weights, config and tokenizer.
  const std::vector<std::filesystem::path>& files() const { return files_; }

 private:
  Checkpoint() = default;
  Status open_gguf();
  Status open_folder();
  Status open_shards();
  Status add_tensors(const container::SafetensorsFile& file,
                     const std::unordered_map<std::string, std::string>* places);

  std::filesystem::path path_;
  std::string family_;
  Fields fields_;
  std::string config_text_;
  std::vector<std::filesystem::path> files_;
  std::unique_ptr<container::GgufFile> gguf_;
  std::vector<std::unique_ptr<container::SafetensorsFile>> shards_;
  std::vector<Tensor> tensors_;  // of the shards
  std::unordered_map<std::string, std::size_t> index_;
};

}  // namespace kvfs::model

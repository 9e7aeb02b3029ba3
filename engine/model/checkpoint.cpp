#include "engine/model/checkpoint.h"

#include <algorithm>
#include <boost/json.hpp>
#include <optional>
#include <set>

namespace kvfs::model {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using container::GgmlType;
using container::MappedFile;
using container::SafetensorsFile;

constexpr const char* kWhole = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";
constexpr std::size_t kLargestJson = 64U << 20;
// Beside the weights, what decides whether a state may continue.
constexpr const char* kFingerprinted[] = {"config.json", "tokenizer.json", "tokenizer.model",
                                          "vocab.json", "merges.txt"};

Result<json::object> read_json(const fs::path& path, std::string* text) {
  const std::string what = "model file " + path.string();
  KVFS_ASSIGN(const MappedFile file, MappedFile::open(path, what));
  if (file.bytes().size() > kLargestJson) {
    return fail(ErrorCode::kTooLarge, what,
                std::to_string(file.bytes().size()) + " bytes are more than a config has");
  }
  const std::string_view content = as_text(file.bytes());
  boost::system::error_code problem;
  json::parse_options options;
  options.max_depth = 16;
  json::value value =
      json::parse(json::string_view(content.data(), content.size()), problem, {}, options);
  if (problem) return fail(ErrorCode::kCorrupt, what, "JSON: " + problem.message());
  if (!value.is_object()) return fail(ErrorCode::kCorrupt, what, "JSON: not an object");
  if (text != nullptr) *text = content;
  return std::move(value.get_object());
}

std::optional<GgmlType> weight_type(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return GgmlType::kF32;
    case DType::kF16:
      return GgmlType::kF16;
    case DType::kBF16:
      return GgmlType::kBF16;
    default:
      return std::nullopt;
  }
}

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

}  // namespace

Result<std::unique_ptr<Checkpoint>> Checkpoint::open(const fs::path& path) {
  std::unique_ptr<Checkpoint> made(new Checkpoint);
  made->path_ = path;
  std::error_code ignored;
  if (fs::is_directory(path, ignored))
    KVFS_TRY(made->open_folder());
  else
    KVFS_TRY(made->open_gguf());
  return made;
}

void Checkpoint::release_pages() const {
  if (gguf_) gguf_->release_pages();
  for (const auto& shard : shards_) shard->release_pages();
}

const std::vector<Tensor>& Checkpoint::tensors() const {
  return gguf_ ? gguf_->tensors() : tensors_;
}

const Tensor* Checkpoint::find(std::string_view name) const {
  if (gguf_) return gguf_->find_tensor(name);
  const auto found = index_.find(std::string(name));
  return found != index_.end() ? &tensors_[found->second] : nullptr;
}

Status Checkpoint::open_gguf() {
  KVFS_ASSIGN(gguf_, container::GgufFile::open(path_));
  KVFS_ASSIGN(family_, gguf_->string_at("general.architecture"));
  fields_ = Fields::of_gguf(*gguf_, family_);
  files_ = {path_};
  return {};
}

Status Checkpoint::open_folder() {
  const fs::path config = path_ / "config.json";
  if (!is_there(config)) {
    return fail(ErrorCode::kNotFound, what(), "the folder has no config.json",
                "give a .gguf file or a Hugging Face folder");
  }
  KVFS_ASSIGN(json::object object, read_json(config, &config_text_));
  fields_ = Fields::of_json(std::move(object), "model file " + config.string());
  KVFS_ASSIGN(family_, fields_.text({"model_type", nullptr}));
  for (const char* name : kFingerprinted) {
    if (is_there(path_ / name)) files_.push_back(path_ / name);
  }
  return open_shards();
}

Status Checkpoint::open_shards() {
  if (is_there(path_ / kWhole)) {
    KVFS_ASSIGN(auto file, SafetensorsFile::open(path_ / kWhole));
    files_.push_back(file->path());
    KVFS_TRY(add_tensors(*file, nullptr));
    shards_.push_back(std::move(file));
    return {};
  }
  const fs::path index = path_ / kIndex;
  if (!is_there(index)) {
    return fail(ErrorCode::kNotFound, what(),
                std::string("the folder has neither ") + kWhole + " nor " + kIndex,
                "convert its weights to safetensors: transformers' save_pretrained writes them");
  }
  const std::string what = "model file " + index.string();
  KVFS_ASSIGN(const json::object object, read_json(index, nullptr));
  const json::value* map = object.if_contains("weight_map");
  if (map == nullptr || !map->is_object()) {
    return fail(ErrorCode::kCorrupt, what, "weight_map: not an object", "get the file again");
  }
  std::unordered_map<std::string, std::string> places;
  std::set<std::string> names;
  for (const auto& [tensor, file] : map->get_object()) {
    // A path out of the folder would read files that nobody meant.
    if (!file.is_string() || file.get_string().empty() ||
        file.get_string().find('/') != json::string::npos) {
      return fail(ErrorCode::kCorrupt, what,
                  "weight_map, " + std::string(tensor) + ": not a file of the folder",
                  "get the file again");
    }
    places.emplace(tensor, file.get_string());
    names.emplace(file.get_string());
  }
  for (const std::string& name : names) {
    KVFS_ASSIGN(auto file, SafetensorsFile::open(path_ / name));
    files_.push_back(file->path());
    KVFS_TRY(add_tensors(*file, &places));
    shards_.push_back(std::move(file));
  }
  for (const auto& place : places) {
    const std::string& tensor = place.first;
    const std::string& file = place.second;
    const bool there = std::ranges::any_of(shards_, [&](const auto& shard) {
      return shard->path().filename() == file &&
             std::ranges::any_of(shard->header().tensors,
                                 [&](const auto& entry) { return entry.name == tensor; });
    });
    if (!there) {
      return fail(ErrorCode::kCorrupt, what, "weight_map, " + tensor + ": " + file + " lacks it",
                  "get the file again");
    }
  }
  return {};
}

Status Checkpoint::add_tensors(const SafetensorsFile& file,
                               const std::unordered_map<std::string, std::string>* places) {
  for (const container::TensorEntry& entry : file.header().tensors) {
    if (places != nullptr) {
      const auto place = places->find(entry.name);
      if (place == places->end() || place->second != file.path().filename()) continue;
    }
    const auto type = weight_type(entry.dtype);
    if (!type) continue;  // masks and counters, which nobody asks for
    Tensor tensor{.name = entry.name, .type = *type, .bytes = file.bytes_of(entry)};
    tensor.dims.assign(entry.shape.rbegin(), entry.shape.rend());
    index_.emplace(tensor.name, tensors_.size());
    tensors_.push_back(std::move(tensor));
  }
  return {};
}

}  // namespace kvfs::model

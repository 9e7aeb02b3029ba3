#include "engine/sched/catalog.h"

#include <algorithm>
#include <boost/json.hpp>
#include <mutex>
#include <system_error>

namespace kvfs::sched {
namespace {

namespace fs = std::filesystem;

struct Entry {
  std::string name;
  fs::path path;
  std::mutex mutex;  // guards what follows; held while the card is read
  std::unique_ptr<model::ModelCard> card;
};

std::string join(const std::vector<std::string>& names) {
  std::string out;
  for (const auto& name : names) out += (out.empty() ? "" : ", ") + name;
  return out;
}

bool is_gguf(const fs::path& path) { return path.extension() == ".gguf"; }

bool is_folder(const fs::path& path) {  // of Hugging Face's kind
  std::error_code error;
  return fs::is_regular_file(path / "config.json", error);
}

// A path, or a name in the models' directory.
Result<fs::path> locate(const std::string& given, const fs::path& directory) {
  std::error_code error;
  const std::string what = "model " + given;
  const bool path_like = given.find('/') != std::string::npos || is_gguf(given);
  std::vector<fs::path> places;
  if (path_like) places.emplace_back(given);
  if (!directory.empty() && given.find('/') == std::string::npos) {
    places.push_back(directory / given);
    if (!is_gguf(given)) places.push_back(directory / (given + ".gguf"));
  }
  for (const auto& place : places) {
    if (fs::is_regular_file(place, error) || is_folder(place))
      return fs::absolute(place, error).lexically_normal();
    if (fs::is_directory(place, error)) {
      return fail(ErrorCode::kUnsupported, what,
                  place.string() + " is a folder without config.json",
                  "give a .gguf file or a Hugging Face folder");
    }
  }
  std::string looked;
  for (const auto& place : places) looked += (looked.empty() ? "" : " nor ") + place.string();
  return fail(ErrorCode::kNotFound, what,
              looked.empty() ? "no --models directory is set to find a name in"
                             : "there is no file " + looked,
              "give the path of a .gguf file or a Hugging Face folder, or a name in the --models "
              "directory");
}

std::vector<fs::path> models_in(const fs::path& directory) {
  std::vector<fs::path> out;
  std::error_code error;
  for (const auto& item : fs::directory_iterator(directory, error)) {
    if ((is_gguf(item.path()) && item.is_regular_file(error)) || is_folder(item.path())) {
      out.push_back(fs::absolute(item.path(), error).lexically_normal());
    }
  }
  std::ranges::sort(out);
  return out;
}

boost::json::object info_of(const model::ModelCard& card) {
  const auto& info = card.info;
  std::uint64_t block_bytes = 0;
  boost::json::array layers;
  for (const auto& layer : info.layers) {
    block_bytes += layer.block_elements() * size_of(info.kv_dtype);
    if (layer.kind == LayerKind::kConvolution) {
      layers.push_back(
          {{"kind", "convolution"}, {"kept", layer.kept}, {"channels", layer.key_width}});
      continue;
    }
    layers.push_back({{"kv_heads", layer.kv_heads},
                      {"key_width", layer.key_width},
                      {"value_width", layer.value_width}});
  }
  boost::json::object out{{"name", info.name},
                          {"file", info.path.string()},
                          {"architecture", info.architecture},
                          {"parameters", info.parameters},
                          {"weight_bytes", info.weight_bytes},
                          {"resident_bytes", info.resident_bytes},
                          {"context_length", info.context_length},
                          {"vocab_size", info.vocab_size},
                          {"kernel_class", info.kernel_class},
                          {"kv_dtype", name_of(info.kv_dtype)},
                          {"kv_bytes_per_token", block_bytes / kBlockTokens},
                          {"chat_template", card.chat != nullptr}};
  if (!card.chat_error.empty()) out["chat_template_error"] = card.chat_error;
  out["layers"] = std::move(layers);
  return out;
}

}  // namespace

struct Catalog::Impl {
  CatalogOptions options;
  std::vector<std::unique_ptr<Entry>> entries;  // the default first

  Status add(const fs::path& path) {
    const std::string name = model::model_name(path);
    for (const auto& entry : entries) {
      if (entry->name != name) continue;
      std::error_code error;
      if (fs::equivalent(entry->path, path, error)) return {};
      return fail(ErrorCode::kExists, "model " + path.string(),
                  entry->path.string() + " has the same name", "rename one of the two files");
    }
    entries.push_back(std::make_unique<Entry>());
    entries.back()->name = name;
    entries.back()->path = path;
    return {};
  }
};

Catalog::Catalog(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Catalog::~Catalog() = default;

Result<std::unique_ptr<Catalog>> Catalog::open(const CatalogOptions& options) {
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  if (!impl->options.read) impl->options.read = model::read_card;
  for (const auto& given : options.models) {
    KVFS_ASSIGN(const auto path, locate(given, options.directory));
    KVFS_TRY(impl->add(path));
  }
  if (!options.directory.empty()) {
    for (const auto& path : models_in(options.directory)) KVFS_TRY(impl->add(path));
  }
  if (impl->entries.empty()) {
    return fail(ErrorCode::kNotFound, "models", "no model is given",
                "name a .gguf file with --model, or a directory of them with --models");
  }
  std::unique_ptr<Catalog> out(new Catalog(std::move(impl)));
  KVFS_TRY(out->card(""));
  return out;
}

std::vector<std::string> Catalog::names() const {
  std::vector<std::string> out;
  for (const auto& entry : impl_->entries) out.push_back(entry->name);
  return out;
}

const std::string& Catalog::default_name() const { return impl_->entries.front()->name; }
const CatalogOptions& Catalog::options() const { return impl_->options; }

Result<const model::ModelCard*> Catalog::card(const std::string& name) {
  const auto it = name.empty() ? impl_->entries.begin()
                               : std::ranges::find(impl_->entries, name,
                                                   [](const auto& entry) { return entry->name; });
  if (it == impl_->entries.end()) {
    return fail(ErrorCode::kNotFound, "model " + name, "the daemon does not know it",
                "choose one of " + join(names()) + ", or start the daemon with --model");
  }
  Entry& entry = **it;
  const std::lock_guard lock(entry.mutex);
  if (!entry.card) {
    const auto& options = impl_->options;
    KVFS_ASSIGN(entry.card,
                options.read(entry.path, options.compute, options.device, options.cache_directory));
  }
  return entry.card.get();
}

Result<std::string> Catalog::config_json(const std::string& name) {
  KVFS_ASSIGN(const auto* found, card(name));
  return found->config_json;
}

Result<std::string> Catalog::fingerprint(const std::string& name) {
  KVFS_ASSIGN(const auto* found, card(name));
  return found->info.fingerprint.hex();
}

Result<std::string> Catalog::info_json(const std::string& name) {
  KVFS_ASSIGN(const auto* found, card(name));
  return boost::json::serialize(info_of(*found)) + "\n";
}

}  // namespace kvfs::sched

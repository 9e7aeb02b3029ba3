// The models the daemon knows: GGUF files and Hugging Face folders, given by --model or found by name
// in --models. A model's name is its file's without the suffix, or its folder's. Cards are read at
// first use and kept. Any thread.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "codec/base/result.h"
#include "engine/model/model.h"

namespace kvfs::sched {

struct CatalogOptions {
  std::vector<std::string> models;        // --model, names or paths; the first is the default
  std::filesystem::path directory;        // --models; may be empty
  std::filesystem::path cache_directory;  // fingerprints
  model::Compute compute = model::Compute::kFast;
  model::DeviceChoice device;
  // How a card is read; empty: model::read_card. Tests of the scheduler give their own.
  std::function<Result<std::unique_ptr<model::ModelCard>>(
      const std::filesystem::path&, model::Compute, const model::DeviceChoice&,
      const std::filesystem::path& cache_directory)>
      read;
};

class Catalog {
 public:
  // Fails when a named model is missing, when two share a name, or when the default is damaged: the
  // error names the file and the way out. The others' cards are read when first asked for.
  static Result<std::unique_ptr<Catalog>> open(const CatalogOptions& options);
  ~Catalog();

  std::vector<std::string> names() const;  // in order, the default first
  const std::string& default_name() const;
  const CatalogOptions& options() const;  // compute and device, for loading
  // "" is the default. The card lives as long as the catalog. kNotFound lists the names there are.
  Result<const model::ModelCard*> card(const std::string& name);

  // What models/NAME/ shows.
  Result<std::string> config_json(const std::string& name);
  Result<std::string> fingerprint(const std::string& name);  // hex
  Result<std::string> info_json(const std::string& name);

 private:
  struct Impl;
  explicit Catalog(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvfs::sched

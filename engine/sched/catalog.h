// The models the daemon knows: files given by --model, or found by name in --models. Cards are read
// at first use and kept. Any thread.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "codec/base/result.h"
#include "engine/model/model.h"

namespace kvfs::sched {

struct CatalogOptions {
  std::vector<std::string> models;          // --model, names or paths; the first is the default
  std::filesystem::path directory;          // --models; may be empty
  std::filesystem::path cache_directory;    // fingerprints
  model::Compute compute = model::Compute::kFast;
  model::DeviceChoice device;
};

class Catalog {
 public:
  // Fails when a named model is missing or damaged: the error names the file and the way out.
  static Result<std::unique_ptr<Catalog>> open(const CatalogOptions& options);
  ~Catalog();

  std::vector<std::string> names() const;    // in order, the default first
  const std::string& default_name() const;
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

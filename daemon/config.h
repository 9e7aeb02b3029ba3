// What kvfsd was told to do: flags, then KVFS_… variables, then the TOML file, then defaults.
//
// Pure but for the TOML file: what it needs of the process comes in as Surroundings. Failures are
// kInvalid (usage) and name the flag, the variable or the file's key that is wrong.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "codec/base/result.h"
#include "engine/model/model.h"

namespace kvfs::daemon {

struct ListenAddress {
  std::string host;  // without the brackets of IPv6
  std::uint16_t port = 0;
};

struct Config {
  std::filesystem::path store;
  std::filesystem::path mount;
  std::vector<std::string> models;         // --model, the default first
  std::filesystem::path models_directory;  // --models
  model::DeviceChoice device;
  model::Compute compute = model::Compute::kFast;
  std::filesystem::path config_file;  // empty: none was read
  std::filesystem::path socket;
  std::optional<ListenAddress> listen;
  std::filesystem::path token_file;
  bool no_mount = false;
  bool share_prefixes = false;
  bool foreground = false;
  bool check = false;
  std::string log_level = "info";
  std::vector<std::string> fuse_options;  // -o, split at commas
  int threads = 0;                        // 0: one a physical core
  std::uint64_t kv_budget = 0;            // bytes of KV of a model; 0: what the memory leaves
  std::uint64_t memory = 0;               // bytes of all models; 0: a share of the machine's
};

// What the defaults depend on.
struct Surroundings {
  std::function<std::optional<std::string>(const std::string& name)> variable;
  bool root = false;
  std::uint32_t uid = 0;
  std::filesystem::path home;
  std::filesystem::path program_directory;  // where kvfsd lies: models are found relative to it
  std::filesystem::path working_directory;  // relative paths become absolute against it
};
Surroundings surroundings_of_process();

// A configuration, or a text to print and leave with 0 (--help, --version).
using ConfigOrText = std::variant<Config, std::string>;
Result<ConfigOrText> read_config(int argc, const char* const* argv, const Surroundings& around);

}  // namespace kvfs::daemon

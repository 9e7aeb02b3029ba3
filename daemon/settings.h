// The table of kvfsd's settings: one row is a flag, a TOML key and a KVFS_… variable at once.
// Immutable data and pure functions; errors are kInvalid and say what would be right.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "codec/base/result.h"
#include "daemon/config.h"

namespace kvfs::daemon {

struct Setting {
  enum class Kind { kValue, kList, kSwitch };  // a switch takes no value on the command line

  std::string_view name;   // "no-mount": --no-mount, no-mount = true, KVFS_NO_MOUNT=1
  std::string_view flags;  // as CLI11 has them
  Kind kind = Kind::kValue;
  std::string_view value_name;
  std::string_view help;
  bool in_file = true;  // may stand in the TOML file
  // values is not empty; kValue and kSwitch look at the last.
  Status (*apply)(Config& config, const std::vector<std::string>& values) = nullptr;

  std::string variable() const;  // "KVFS_NO_MOUNT"
};
std::span<const Setting> settings();

}  // namespace kvfs::daemon

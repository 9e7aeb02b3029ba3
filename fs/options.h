// What follows -o: our own words, and the rest for libfuse. Pure.
#pragma once

#include <string>
#include <vector>

#include "codec/base/result.h"
#include "fs/context.h"

namespace kvfs::fs {

struct ParsedOptions {
  Behaviour behaviour;
  std::vector<std::string> fuse;  // default_permissions and the mount's name are among them
};

// Each may hold several, separated by commas. kInvalid: a word of ours with a wrong value.
Result<ParsedOptions> parse_options(const std::vector<std::string>& options);

}  // namespace kvfs::fs

// Names that programs use on the way to the real one. Pure.
#pragma once

#include <string_view>

namespace kvfs::fs {

// `.*`, `*~`, `*.tmp`, `.nfs*`, emacs' `#*#`, and vim's test of whether it may write here: never a
// job.
inline bool is_scratch_name(std::string_view name) {
  const bool autosave = name.size() > 2 && name.starts_with('#') && name.ends_with('#');
  return name.starts_with('.') || name.ends_with('~') || name.ends_with(".tmp") || name == "4913" ||
         autosave;
}

// Beside a parameter, whose names are known, `sed -i` too is given its sedXXXXXX.
inline bool is_scratch_beside_params(std::string_view name) {
  constexpr std::size_t kSedName = 9;
  return is_scratch_name(name) || (name.size() == kSedName && name.starts_with("sed"));
}

}  // namespace kvfs::fs

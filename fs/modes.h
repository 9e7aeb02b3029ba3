// File types and permissions: all of a state's files follow the state's own. Pure.
#pragma once

#include <sys/stat.h>

#include <cstdint>

#include "engine/store/records.h"

namespace kvfs::fs {

inline constexpr std::uint32_t kReadOnly = 0444;
inline constexpr std::uint32_t kReadWrite = 0666;

inline std::uint32_t file_mode(const store::StateRecord& state, std::uint32_t allowed) {
  return S_IFREG | (state.mode & allowed);
}
inline std::uint32_t directory_mode(const store::StateRecord& state) {
  return S_IFDIR | (state.mode & 0777);
}

}  // namespace kvfs::fs

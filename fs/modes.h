// File types and permissions: all of a state's files follow the state's own. Pure.
#pragma once

#include <sys/stat.h>

#include <cstdint>

#include "engine/store/records.h"

namespace kvfs::fs {

inline constexpr std::uint32_t kReadOnly = 0444;
inline constexpr std::uint32_t kReadWrite = 0666;

// A snapshot is read-only, whatever its state is.
inline std::uint32_t permissions(const store::StateRecord& state) {
  return state.mode & (state.snapshot ? 0555 : 0777);
}
inline std::uint32_t file_mode(const store::StateRecord& state, std::uint32_t allowed) {
  return S_IFREG | (permissions(state) & allowed);
}
inline std::uint32_t directory_mode(const store::StateRecord& state) {
  return S_IFDIR | permissions(state);
}

}  // namespace kvfs::fs

// Log facade: fmt-style macros over spdlog's default logger, which the composition root sets up.
// Any thread. Lines name the object first ("job 17 on quantum: …"); prompts' contents are never logged.
#pragma once

#include <fmt/core.h>

namespace kvfs::log {

enum class Level { kDebug, kInfo, kWarn, kError };

bool wanted(Level level);
void write(Level level, fmt::string_view line);

template <class... Args>
void format(Level level, fmt::format_string<Args...> text, Args&&... args) {
  if (wanted(level)) write(level, fmt::vformat(text, fmt::make_format_args(args...)));
}

}  // namespace kvfs::log

#define KVFS_DEBUG(...) ::kvfs::log::format(::kvfs::log::Level::kDebug, __VA_ARGS__)
#define KVFS_INFO(...) ::kvfs::log::format(::kvfs::log::Level::kInfo, __VA_ARGS__)
#define KVFS_WARN(...) ::kvfs::log::format(::kvfs::log::Level::kWarn, __VA_ARGS__)
#define KVFS_ERROR(...) ::kvfs::log::format(::kvfs::log::Level::kError, __VA_ARGS__)

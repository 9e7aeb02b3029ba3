// Log facade: fmt-style macros over spdlog's default logger, which the composition root sets up.
// Any thread. Lines name the object first ("job 17 on quantum: …"); prompts' contents are never logged.
#pragma once

#include <spdlog/spdlog.h>

#define KVFS_DEBUG(...) ::spdlog::debug(__VA_ARGS__)
#define KVFS_INFO(...) ::spdlog::info(__VA_ARGS__)
#define KVFS_WARN(...) ::spdlog::warn(__VA_ARGS__)
#define KVFS_ERROR(...) ::spdlog::error(__VA_ARGS__)

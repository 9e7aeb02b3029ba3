#include "codec/base/log.h"

#include <spdlog/spdlog.h>

namespace kvfs::log {
namespace {

spdlog::level::level_enum in_spdlog(Level level) {
  switch (level) {
    case Level::kDebug: return spdlog::level::debug;
    case Level::kInfo: return spdlog::level::info;
    case Level::kWarn: return spdlog::level::warn;
    case Level::kError: return spdlog::level::err;
  }
  return spdlog::level::off;
}

}  // namespace

bool wanted(Level level) { return spdlog::should_log(in_spdlog(level)); }

void write(Level level, fmt::string_view line) {
  spdlog::default_logger_raw()->log(in_spdlog(level),
                                    spdlog::string_view_t(line.data(), line.size()));
}

}  // namespace kvfs::log

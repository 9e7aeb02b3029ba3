#include "daemon/logging.h"

#include <cstdlib>
#include <system_error>

#include <spdlog/sinks/rotating_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace kvfs::daemon {
namespace {

constexpr std::size_t kMostLogBytes = 10 << 20;
constexpr std::size_t kOldLogs = 1;

}  // namespace

Status set_up_logging(const Config& config) {
  const char* pattern = "%Y-%m-%d %H:%M:%S.%e %l %v";
  spdlog::sink_ptr sink;
  if (config.foreground) {
    sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
    if (std::getenv("JOURNAL_STREAM") != nullptr) pattern = "%l %v";
  } else {
    const std::filesystem::path file = config.store / "kvfsd.log";
    std::error_code error;
    if (std::filesystem::create_directories(config.store, error)) {
      std::filesystem::permissions(config.store, std::filesystem::perms::owner_all, error);
    }
    try {
      sink = std::make_shared<spdlog::sinks::rotating_file_sink_mt>(file.string(), kMostLogBytes,
                                                                    kOldLogs);
    } catch (const spdlog::spdlog_ex& exception) {
      return fail(ErrorCode::kIo, "store " + config.store.string(), exception.what(),
                  "name a directory you may write to with --store");
    }
  }
  auto logger = std::make_shared<spdlog::logger>("kvfsd", std::move(sink));
  logger->set_pattern(pattern);
  logger->set_level(spdlog::level::from_str(config.log_level));
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
  return {};
}

}  // namespace kvfs::daemon

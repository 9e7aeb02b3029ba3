#include "daemon/lifetime.h"

#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <string_view>

#include <boost/asio/post.hpp>

#include "codec/base/log.h"
#include "daemon/exit_code.h"

namespace kvfs::daemon {
namespace {

// Less than the 5 s that are promised.
constexpr auto kMostEnding = std::chrono::milliseconds(4700);

void start_watchdog() {
  // Detached: it must outlive whatever hangs, and dies with the process.
  std::thread([] {
    std::this_thread::sleep_for(kMostEnding);
    // Not by the log: main may have returned, and the logger be gone.
    constexpr std::string_view why =
        "kvfsd: shutdown: took too long, leaving; the store is sound, as after a crash\n";
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, why.data(), why.size());
    ::_exit(kExitFailure);
  }).detach();
}

}  // namespace

Lifetime::Lifetime() : work_(io_.get_executor()), signals_(io_, SIGTERM, SIGINT) {
  std::signal(SIGHUP, SIG_IGN);
  std::signal(SIGPIPE, SIG_IGN);
  signals_.async_wait([this](boost::system::error_code error, int signal) {
    if (!error) request_end(signal == SIGTERM ? "SIGTERM" : "SIGINT");
  });
  thread_ = std::thread([this] { io_.run(); });
}

Lifetime::~Lifetime() {
  boost::asio::post(io_, [this] { signals_.cancel(); });
  work_.reset();
  thread_.join();
}

void Lifetime::request_end(const std::string& reason) {
  if (ending_.exchange(true)) return;
  KVFS_INFO("shutdown: {}", reason);
  notify_manager("STOPPING=1\nSTATUS=ending: " + reason);
  start_watchdog();
  requested_.release();
}

void Lifetime::wait() { requested_.acquire(); }

void notify_manager(const std::string& state) { sd_notify(0, state.c_str()); }

}  // namespace kvfs::daemon

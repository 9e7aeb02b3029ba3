#include "cli/progress.h"

#include <unistd.h>

#include <cstdio>
#include <utility>

#include "cli/table.h"

namespace kvfs::cli {
namespace {

constexpr std::chrono::milliseconds kEvery{100};

}  // namespace

Progress::Progress(std::string what)
    : what_(std::move(what)), terminal_(::isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
  if (shown_) std::fputs("\r\033[K", stderr);
}

void Progress::show(std::uint64_t done, std::uint64_t size) {
  const auto now = std::chrono::steady_clock::now();
  if (!terminal_ || now < next_) return;
  next_ = now + kEvery;
  shown_ = true;
  const double share = size == 0 ? 1 : static_cast<double>(done) / static_cast<double>(size);
  std::fprintf(stderr, "\r\033[K%s %3.0f%% of %s", what_.c_str(), 100 * share,
               human_bytes(static_cast<double>(size)).c_str());
}

}  // namespace kvfs::cli

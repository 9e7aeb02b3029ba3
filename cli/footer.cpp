#include "cli/footer.h"

#include <sys/ioctl.h>
#include <unistd.h>

namespace kvfs::cli {
namespace {

// DEC's sequences, which every terminal emulator of today knows.
const std::string kSaveCursor = "\0337", kRestoreCursor = "\0338", kNextLine = "\033D";
const std::string kEraseBelow = "\033[J", kEraseLine = "\033[2K", kWholeScreen = "\033[r";

std::string at_row(int row) { return "\033[" + std::to_string(row) + ";1H"; }

}  // namespace

Footer::Size Footer::size() const {
  winsize window{};
  if (::isatty(fd_) != 1 || ::ioctl(fd_, TIOCGWINSZ, &window) != 0) return {};
  return {.columns = window.ws_col, .rows = window.ws_row};
}

void Footer::write(const std::string& bytes) const {
  for (std::size_t done = 0; done < bytes.size();) {
    const auto wrote = ::write(fd_, bytes.data() + done, bytes.size() - done);
    if (wrote <= 0) return;  // the terminal went
    done += static_cast<std::size_t>(wrote);
  }
}

// Scrolls what stands there up, in the same column, and keeps the last lines out of the scrolling.
std::string Footer::reserved(const Size& size, int lines) const {
  std::string out;
  for (int i = 0; i < lines; ++i) out += kNextLine;
  out += "\033[" + std::to_string(lines) + "A" + kSaveCursor;
  out += "\033[1;" + std::to_string(size.rows - lines) + "r";  // the cursor goes to the top
  return out + kRestoreCursor;
}

void Footer::draw(const std::vector<std::string>& lines) {
  const Size now = size();
  const auto count = static_cast<int>(lines.size());
  if (now.rows < count + 2) return;
  const bool resized = now.rows != drawn_on_.rows || now.columns != drawn_on_.columns;
  std::string out;
  if (resized || count != lines_) {
    close();
    out += reserved(now, count);
    drawn_on_ = now;
    lines_ = count;
  }
  out += kSaveCursor;
  for (int i = 0; i < count; ++i)
    out += at_row(now.rows - count + 1 + i) + kEraseLine + lines[static_cast<std::size_t>(i)];
  write(out + kRestoreCursor);
}

void Footer::close() {
  if (lines_ == 0) return;
  lines_ = 0;
  write(kSaveCursor + kWholeScreen + kRestoreCursor + kEraseBelow);
}

}  // namespace kvfs::cli

#include "daemon/launch.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <utility>

namespace kvfs::daemon {
namespace {

constexpr char kReady = 'R';
constexpr char kFailed = 'F';  // then the exit code's digit and the error's message

void write_all(int file, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(file, text.data(), text.size());
    if (written < 0 && errno != EINTR) return;  // the parent is gone: nobody to tell
    if (written > 0) text.remove_prefix(static_cast<std::size_t>(written));
  }
}

std::string read_all(int file) {
  std::string text;
  char buffer[4096];
  while (true) {
    const ssize_t bytes = ::read(file, buffer, sizeof buffer);
    if (bytes > 0) text.append(buffer, static_cast<std::size_t>(bytes));
    if (bytes == 0 || (bytes < 0 && errno != EINTR)) return text;
  }
}

void print_line(const std::string& message) {
  std::fprintf(stderr, "kvfsd: %s\n", message.c_str());
}

ExitCode await_child(int pipe, pid_t child) {
  const std::string word = read_all(pipe);
  ::close(pipe);
  if (!word.empty() && word[0] == kReady) return kExitOk;
  if (word.size() > 1 && word[0] == kFailed) {
    print_line(word.substr(2));
    return static_cast<ExitCode>(word[1] - '0');
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  print_line(WIFSIGNALED(status)
                 ? "daemon: ended by signal " + std::to_string(WTERMSIG(status)) +
                       " before it answered; start it with --foreground to see more"
                 : "daemon: ended before it answered; see kvfsd.log in the store's directory");
  return kExitFailure;
}

void to_null(int file) {
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0) return;
  ::dup2(null, file);
  ::close(null);
}

}  // namespace

void print_error(const Error& error) { print_line(error.message()); }

std::variant<Launch, ExitCode> Launch::detach() {
  int pipe[2];
  if (::pipe2(pipe, O_CLOEXEC) != 0) {
    print_line(std::string("daemon: ") + std::strerror(errno) + "; start it with --foreground");
    return kExitFailure;
  }
  const pid_t child = ::fork();
  if (child < 0) {
    print_line(std::string("daemon: ") + std::strerror(errno) + "; start it with --foreground");
    return kExitFailure;
  }
  if (child > 0) {
    ::close(pipe[1]);
    return await_child(pipe[0], child);
  }
  ::close(pipe[0]);
  ::setsid();
  to_null(STDIN_FILENO);
  std::error_code ignored;
  std::filesystem::current_path("/", ignored);  // keep no directory busy
  return Launch(pipe[1]);
}

Launch::Launch(Launch&& other) noexcept : pipe_(std::exchange(other.pipe_, -1)) {}

Launch::~Launch() {
  if (pipe_ >= 0) ::close(pipe_);
}

void Launch::ready() {
  if (pipe_ < 0) return;
  to_null(STDOUT_FILENO);
  to_null(STDERR_FILENO);
  write_all(pipe_, std::string(1, kReady));
  ::close(std::exchange(pipe_, -1));
}

ExitCode Launch::failed(const Failure& failure) {
  if (pipe_ < 0) {
    print_error(failure.error);
    return failure.code;
  }
  write_all(pipe_, std::string(1, kFailed) + static_cast<char>('0' + failure.code) +
                       failure.error.message());
  ::close(std::exchange(pipe_, -1));
  return failure.code;
}

}  // namespace kvfs::daemon

#include "tests/fs/shell.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <stdexcept>

namespace kvfs::fs::test {

using std::chrono::steady_clock;

Program::Program(const std::string& command, const std::filesystem::path& directory) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("pipe2");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
  posix_spawn_file_actions_addchdir_np(&actions, directory.c_str());
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);  // signals reach its children too
  const char* const arguments[] = {"bash", "-c", command.c_str(), nullptr};
  const int failed = ::posix_spawnp(&process_, "bash", &actions, &attributes,
                                    const_cast<char* const*>(arguments), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  output_fd_ = ends[0];
  ::fcntl(output_fd_, F_SETFL, O_NONBLOCK);
  if (failed != 0) throw std::runtime_error("posix_spawn");
}

Program::~Program() {
  if (!reaped_) {
    signal(SIGKILL);
    ended(true);
  }
  ::close(output_fd_);
}

void Program::signal(int number) const { ::kill(-process_, number); }

std::string Program::so_far() {
  char buffer[65536];
  for (ssize_t got = 0; (got = ::read(output_fd_, buffer, sizeof buffer)) > 0;) {
    output_.append(buffer, static_cast<std::size_t>(got));
  }
  return output_;
}

bool Program::ended(bool block) {
  int status = 0;
  if (!reaped_ && ::waitpid(process_, &status, block ? 0 : WNOHANG) == process_) {
    reaped_ = true;
    code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  return reaped_;
}

Outcome Program::wait(std::chrono::milliseconds bound) {
  const auto end = steady_clock::now() + bound;
  while (!ended(false) && steady_clock::now() < end) {
    so_far();
    pollfd readable{.fd = output_fd_, .events = POLLIN, .revents = 0};
    ::poll(&readable, 1, 2);
    if ((readable.revents & POLLHUP) != 0)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  if (!reaped_) {
    signal(SIGKILL);
    return {-1, so_far()};
  }
  return {code_, so_far()};
}

Outcome run(const std::string& command, const std::filesystem::path& directory) {
  return Program(command, directory).wait();
}

std::string read_file(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw std::runtime_error("open " + path.string() + ": " + std::to_string(errno));
  std::string text;
  char buffer[65536];
  ssize_t got = 0;
  while ((got = ::read(fd, buffer, sizeof buffer)) > 0) {
    text.append(buffer, static_cast<std::size_t>(got));
  }
  ::close(fd);
  if (got < 0) throw std::runtime_error("read " + path.string());
  return text;
}

int write_file(const std::filesystem::path& path, const std::string& text, int flags) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC, 0644);
  if (fd < 0) return errno;
  int failed = 0;
  for (std::size_t at = 0; at < text.size() && failed == 0;) {
    const ssize_t put = ::write(fd, text.data() + at, text.size() - at);
    if (put < 0) {
      failed = errno;
    } else {
      at += static_cast<std::size_t>(put);
    }
  }
  const int closed = ::close(fd) == 0 ? 0 : errno;
  return failed != 0 ? failed : closed;
}

int write_file(const std::filesystem::path& path, const std::string& text) {
  return write_file(path, text, O_WRONLY | O_CREAT | O_TRUNC);
}

}  // namespace kvfs::fs::test

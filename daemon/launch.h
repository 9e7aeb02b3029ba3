// How the daemon comes up: in the foreground, or behind a parent that waits until it answers.
//
// detach() forks, so it must be called before any thread, file or LMDB environment exists. The
// parent stays in it until the child has said ready() or failed(), prints the error and gives the
// exit code.
#pragma once

#include <variant>

#include "codec/base/result.h"
#include "daemon/exit_code.h"

namespace kvfs::daemon {

class Launch {
 public:
  static Launch in_foreground() { return Launch(-1); }
  // The child's Launch, or the parent's exit code.
  static std::variant<Launch, ExitCode> detach();

  Launch(Launch&& other) noexcept;
  Launch& operator=(Launch&&) = delete;
  ~Launch();

  // The parent returns 0; the terminal is let go.
  void ready();
  // Tells the user, through the parent if there is one; returns the exit code.
  ExitCode failed(const Failure& failure);

 private:
  explicit Launch(int pipe) : pipe_(pipe) {}
  int pipe_;  // to the parent; -1: none
};

void print_error(const Error& error);  // "kvfsd: what: why; what to do"

}  // namespace kvfs::daemon

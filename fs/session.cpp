#include "fs/session.h"

#include <pthread.h>
#include <signal.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <thread>
#include <utility>

#include "codec/base/log.h"
#include "fs/fuse.h"
#include "fs/operations.h"
#include "fs/request.h"

namespace kvfs::fs {
namespace {

// Wakes the thread in fuse_session_loop_mt, which waits on a semaphore and looks whether the
// session was told to exit when a signal interrupts it.
int wake_signal() { return SIGRTMIN + 7; }

void log_line(enum fuse_log_level level, const char* format, va_list arguments) {
  char line[512];
  std::vsnprintf(line, sizeof line, format, arguments);
  line[std::strcspn(line, "\n")] = '\0';
  if (level <= FUSE_LOG_ERR) {
    KVFS_WARN("libfuse: {}", line);
  } else {
    KVFS_DEBUG("libfuse: {}", line);
  }
}

class Arguments {  // owns what fuse_opt allocates
 public:
  explicit Arguments(const std::vector<std::string>& options) {
    fuse_opt_add_arg(&args_, "kvfsd");
    for (const std::string& option : options) {
      fuse_opt_add_arg(&args_, "-o");
      fuse_opt_add_arg(&args_, option.c_str());
    }
  }
  ~Arguments() { fuse_opt_free_args(&args_); }
  Arguments(const Arguments&) = delete;
  Arguments& operator=(const Arguments&) = delete;
  fuse_args* get() { return &args_; }

 private:
  fuse_args args_ = FUSE_ARGS_INIT(0, nullptr);
};

}  // namespace

Result<std::shared_ptr<Session>> Session::create(std::shared_ptr<Context> context,
                                                 const std::vector<std::string>& options) {
  fuse_set_log_func(log_line);
  std::shared_ptr<Session> session(new Session(std::move(context)));
  Arguments arguments(options);
  session->fuse_ =
      fuse_session_new(arguments.get(), &operations(), sizeof(fuse_lowlevel_ops), session.get());
  if (session->fuse_ == nullptr) {
    std::string given;
    for (const std::string& option : options) given += (given.empty() ? "" : ",") + option;
    return fail(ErrorCode::kInvalid, "mount options -o " + given, "libfuse does not know them all",
                "see the log for which, and mount.fuse3(8) for what there is");
  }
  return session;
}

Session::~Session() {
  drop_opened();
  if (fuse_ != nullptr) fuse_session_destroy(fuse_);
}

Status Session::mount(const std::string& mount_point) {
  if (fuse_session_mount(fuse_, mount_point.c_str()) != 0) {
    return fail(ErrorCode::kIo, "mounting on " + mount_point, "the system refused",
                "see the log; run as root or install fuse3, or use --no-mount");
  }
  mounted_ = true;
  return {};
}

void Session::loop(int workers) {
  sigset_t wake;
  sigemptyset(&wake);
  sigaddset(&wake, wake_signal());
  pthread_sigmask(SIG_UNBLOCK, &wake, nullptr);

  fuse_loop_config* config = fuse_loop_cfg_create();
  fuse_loop_cfg_set_clone_fd(config, 1);
  fuse_loop_cfg_set_max_threads(config, static_cast<unsigned>(workers));
  fuse_session_loop_mt(fuse_, config);
  fuse_loop_cfg_destroy(config);

  const std::lock_guard lock(mutex_);
  loop_ended_ = true;
  changed_.notify_all();
}

void Session::break_loop(std::thread& thread) {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  sigaction(wake_signal(), &action, nullptr);

  fuse_session_exit(fuse_);
  std::unique_lock lock(mutex_);
  while (!loop_ended_) {
    // Again and again: a signal between its look and its wait is lost.
    pthread_kill(thread.native_handle(), wake_signal());
    changed_.wait_for(lock, std::chrono::milliseconds(5), [&] { return loop_ended_; });
  }
}

void Session::unmount() {
  if (std::exchange(mounted_, false)) fuse_session_unmount(fuse_);
}

bool Session::wait_initialized(std::chrono::milliseconds bound) {
  return is_initialized_.wait_for(bound) == std::future_status::ready;
}

void Session::begin_request() {
  const std::lock_guard lock(mutex_);
  ++unanswered_;
}

void Session::end_request() {
  const std::lock_guard lock(mutex_);
  if (--unanswered_ == 0) changed_.notify_all();
}

bool Session::wait_requests(std::chrono::milliseconds bound) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, bound, [&] { return unanswered_ == 0; });
}

bool Session::park(const std::shared_ptr<Request>& request) {
  const std::lock_guard lock(mutex_);
  if (ending_) return false;
  parked_.insert(request);
  return true;
}

void Session::unpark(const std::shared_ptr<Request>& request) {
  const std::lock_guard lock(mutex_);
  parked_.erase(request);
}

void Session::cancel_parked() {
  std::unordered_set<std::shared_ptr<Request>> parked;
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    parked = parked_;
  }
  for (const auto& request : parked) request->cancel(ECANCELED);
}

void Session::drop_opened() {
  decltype(opened_) dropped;
  {
    const std::lock_guard lock(mutex_);
    dropped.swap(opened_);
  }
}

std::uint64_t Session::keep(std::unique_ptr<Opened> opened) {
  const auto fh = reinterpret_cast<std::uint64_t>(opened.get());
  const std::lock_guard lock(mutex_);
  opened_.emplace(fh, std::move(opened));
  return fh;
}

std::shared_ptr<Opened> Session::take(std::uint64_t fh) {
  const std::lock_guard lock(mutex_);
  const auto kept = opened_.extract(fh);
  return kept.mapped();
}

}  // namespace kvfs::fs

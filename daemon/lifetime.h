// How long the daemon lives: the io_context and its thread, signals, and the request to end.
//
// SIGTERM and SIGINT request the end, SIGHUP and SIGPIPE are ignored. From the request on a
// watchdog counts: whatever hangs, the process is gone in 5 s. Create it after the fork, destroy it
// last.
#pragma once

#include <atomic>
#include <semaphore>
#include <string>
#include <thread>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>

namespace kvfs::daemon {

class Lifetime {
 public:
  Lifetime();
  ~Lifetime();
  Lifetime(const Lifetime&) = delete;
  Lifetime& operator=(const Lifetime&) = delete;

  boost::asio::io_context& io() { return io_; }
  // Any thread, any number of times; the first reason counts.
  void request_end(const std::string& reason);
  // Until the end is requested. One thread, once.
  void wait();

 private:
  boost::asio::io_context io_{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  boost::asio::signal_set signals_;
  std::atomic<bool> ending_ = false;
  std::binary_semaphore requested_{0};
  std::thread thread_;  // runs io_
};

// What systemd is told; nothing happens where it did not start us. state: as sd_notify(3) has it.
void notify_manager(const std::string& state);

}  // namespace kvfs::daemon

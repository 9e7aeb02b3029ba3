// The HTTP server: accepts on the unix socket and, if asked to, on TCP, at most 256 connections.
//
// Threads: all sockets live on the io_context's one thread; start() and the stop functions may be
// called from another. Ownership: io_context and services outlive the server, and the io_context
// must still run when it is destroyed. Failure: kBusy when another daemon answers on the socket,
// kInvalid (token file), kIo.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include <boost/asio/io_context.hpp>

#include "daemon/http/services.h"

namespace kvfs::daemon::http {

struct ServerOptions {
  std::filesystem::path socket;
  std::string listen_host;  // "": no TCP
  std::uint16_t listen_port = 0;
  std::filesystem::path token_file;
  int workers = 4;  // threads that run handlers
};

class Server {
 public:
  static Result<std::unique_ptr<Server>> start(boost::asio::io_context& io, Services services,
                                               const ServerOptions& options);
  ~Server();  // stop()

  // No new connections; those that are open go on. The socket's file is removed.
  void stop_accepting();
  // Closes every connection, those that are being answered after a moment, and waits for the last.
  void stop();

 private:
  struct Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvfs::daemon::http

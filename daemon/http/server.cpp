#include "daemon/http/server.h"

#include <sys/socket.h>
#include <unistd.h>

#include <future>
#include <mutex>
#include <set>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "codec/base/log.h"
#include "daemon/http/connection.h"
#include "daemon/http/listeners.h"

namespace kvfs::daemon::http {
namespace {

namespace asio = boost::asio;
using GenericSocket = asio::generic::stream_protocol::socket;

// For answers on their way, such as that to the shutdown itself.
constexpr auto kGrace = std::chrono::milliseconds(300);
constexpr std::size_t kMostConnections = 256;
constexpr std::size_t kMostTurnedAway = 32;  // beyond these a socket is just closed
constexpr auto as_result = asio::as_tuple(asio::use_awaitable);

Peer peer_of(int socket) {
  ucred credentials{};
  socklen_t length = sizeof credentials;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
    return {.uid = ::geteuid(), .gid = ::getegid(), .local = true};
  }
  return {.uid = credentials.uid, .gid = credentials.gid, .local = true};
}

}  // namespace

// Everything below but options belongs to the io_context's thread once start() has returned.
struct Server::Impl {
  Impl(asio::io_context& context, Services given, int worker_threads)
      : io(context),
        services(std::move(given)),
        workers(static_cast<std::size_t>(worker_threads)),
        front{services, workers, {}, false},
        grace(context) {}

  template <class Acceptor>
  asio::awaitable<void> accept(Acceptor& acceptor, bool local);
  asio::awaitable<void> serve(Stream stream, Peer peer);
  void close_acceptors();
  void end_if_idle();

  asio::io_context& io;
  Services services;
  asio::thread_pool workers;
  Front front;
  std::filesystem::path socket_path;
  std::optional<asio::local::stream_protocol::acceptor> unix_acceptor;
  std::optional<asio::ip::tcp::acceptor> tcp_acceptor;
  std::set<Stream*> open;  // each lives in its coroutine's frame
  asio::steady_timer grace;   // after stop(), until what is open gets closed
  int accepting = 0;       // accept loops that have not ended
  bool stopping = false;
  std::promise<void> idle;  // set when stopping and nothing is left
  bool idle_set = false;
};

void Server::Impl::end_if_idle() {
  if (stopping && open.empty() && accepting == 0 && !idle_set) {
    idle_set = true;
    grace.cancel();
    idle.set_value();
  }
}

asio::awaitable<void> Server::Impl::serve(Stream stream, Peer peer) {
  open.insert(&stream);
  try {
    if (open.size() <= kMostConnections) {
      co_await serve_connection(stream, front, peer);
    } else if (open.size() <= kMostConnections + kMostTurnedAway) {
      co_await turn_away(stream);
    }
  } catch (const std::exception& exception) {
    KVFS_WARN("http connection: {}", exception.what());
  }
  open.erase(&stream);
  stream.close();
  end_if_idle();
}

template <class Acceptor>
asio::awaitable<void> Server::Impl::accept(Acceptor& acceptor, bool local) {
  while (acceptor.is_open()) {
    auto [error, socket] = co_await acceptor.async_accept(as_result);
    if (error == asio::error::operation_aborted) break;
    if (error) {  // out of descriptors: give others time to close
      KVFS_WARN("http accept: {}", error.message());
      asio::steady_timer pause(io, std::chrono::milliseconds(100));
      const auto [ignored] = co_await pause.async_wait(as_result);
      static_cast<void>(ignored);
      continue;
    }
    const Peer peer = local ? peer_of(socket.native_handle())
                            : Peer{.uid = ::geteuid(), .gid = ::getegid(), .local = false};
    asio::co_spawn(io, serve(Stream(GenericSocket(std::move(socket))), peer), asio::detached);
  }
  --accepting;
  end_if_idle();
}

void Server::Impl::close_acceptors() {
  boost::system::error_code ignored;
  if (unix_acceptor && unix_acceptor->is_open()) {
    ::unlink(socket_path.c_str());
    unix_acceptor->close(ignored);
  }
  if (tcp_acceptor) tcp_acceptor->close(ignored);
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Server::~Server() { stop(); }

Result<std::unique_ptr<Server>> Server::start(asio::io_context& io, Services services,
                                              const ServerOptions& options) {
  auto impl = std::make_unique<Impl>(io, std::move(services), options.workers);
  if (!options.token_file.empty()) {
    KVFS_ASSIGN(impl->front.token, read_token(options.token_file));
  }
  if (!options.listen_host.empty()) {
    KVFS_ASSIGN(impl->tcp_acceptor,
                listen_tcp(io.get_executor(), options.listen_host, options.listen_port));
  }
  impl->socket_path = options.socket;
  KVFS_ASSIGN(impl->unix_acceptor, listen_unix(io.get_executor(), options.socket));
  impl->accepting = impl->tcp_acceptor ? 2 : 1;
  asio::co_spawn(io, impl->accept(*impl->unix_acceptor, true), asio::detached);
  if (impl->tcp_acceptor) {
    asio::co_spawn(io, impl->accept(*impl->tcp_acceptor, false), asio::detached);
  }
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

void Server::stop_accepting() {
  asio::post(impl_->io, [impl = impl_.get()] { impl->close_acceptors(); });
}

void Server::stop() {
  if (!impl_) return;
  asio::post(impl_->io, [impl = impl_.get()] {
    impl->stopping = true;
    impl->front.closing = true;
    impl->close_acceptors();
    impl->grace.expires_after(kGrace);
    impl->grace.async_wait([impl](boost::system::error_code error) {
      if (error) return;
      for (Stream* stream : impl->open) stream->close();
    });
    impl->end_if_idle();
  });
  impl_->idle.get_future().wait();
  // What was queued for the io_context before has run when this has.
  std::promise<void> flushed;
  asio::post(impl_->io, [&flushed] { flushed.set_value(); });
  flushed.get_future().wait();
  impl_->workers.join();
  impl_.reset();
}

}  // namespace kvfs::daemon::http

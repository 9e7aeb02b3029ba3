#include "daemon/http/listeners.h"

#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include <boost/asio/connect.hpp>

namespace kvfs::daemon::http {
namespace {

namespace asio = boost::asio;
namespace fs = std::filesystem;
using Local = asio::local::stream_protocol;

Status make_directory(const fs::path& directory) {
  std::error_code error;
  if (fs::is_directory(directory, error)) return {};
  fs::create_directories(directory, error);
  if (error || ::chmod(directory.c_str(), 0700) != 0) {
    return fail(ErrorCode::kIo, "socket directory " + directory.string(),
                error ? error.message() : "cannot be made private",
                "choose another place with --socket");
  }
  return {};
}

Status clear_stale(const asio::any_io_executor& executor, const fs::path& path) {
  struct stat facts {};
  if (::lstat(path.c_str(), &facts) != 0) return {};
  if (!S_ISSOCK(facts.st_mode)) {
    return fail(ErrorCode::kExists, "socket " + path.string(), "there is a file that is no socket",
                "remove it, or choose another place with --socket");
  }
  Local::socket probe(executor);
  boost::system::error_code error;
  probe.connect(Local::endpoint(path.string()), error);
  if (!error) {
    return fail(ErrorCode::kBusy, "socket " + path.string(), "another daemon answers on it",
                "stop it with kvfs umount, or choose another place with --socket");
  }
  ::unlink(path.c_str());
  return {};
}

}  // namespace

Result<Local::acceptor> listen_unix(const asio::any_io_executor& executor, const fs::path& path) {
  constexpr std::size_t kMostPath = 107;  // sun_path, without its NUL
  if (path.string().size() > kMostPath) {
    return fail(ErrorCode::kInvalid, "socket " + path.string(),
                "longer than " + std::to_string(kMostPath) + " bytes",
                "choose a shorter path with --socket");
  }
  KVFS_TRY(make_directory(path.parent_path()));
  KVFS_TRY(clear_stale(executor, path));
  Local::acceptor acceptor(executor);
  boost::system::error_code error;
  acceptor.open(Local(), error);
  // Private from its first moment on; no other thread makes files yet.
  const mode_t before = ::umask(0177);
  if (!error) acceptor.bind(Local::endpoint(path.string()), error);
  ::umask(before);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) {
    return fail(ErrorCode::kIo, "socket " + path.string(), error.message(),
                "choose another place with --socket");
  }
  return acceptor;
}

Result<asio::ip::tcp::acceptor> listen_tcp(const asio::any_io_executor& executor,
                                           const std::string& host, std::uint16_t port) {
  using asio::ip::tcp;
  const std::string what = "--listen " + host + ":" + std::to_string(port);
  boost::system::error_code error;
  tcp::resolver resolver(executor);
  const auto found = resolver.resolve(host, std::to_string(port), tcp::resolver::passive, error);
  if (error || found.empty()) {
    return fail(ErrorCode::kIo, what, error.message(), "give an address of this machine");
  }
  const tcp::endpoint endpoint = found.begin()->endpoint();
  tcp::acceptor acceptor(executor);
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) {
    return fail(ErrorCode::kIo, what, error.message(),
                "choose a free port and an address of this machine");
  }
  return acceptor;
}

Result<std::string> read_token(const fs::path& file) {
  const std::string what = "--token-file " + file.string();
  struct stat facts {};
  std::ifstream in(file);
  std::string token;
  if (!in || ::stat(file.c_str(), &facts) != 0) {
    return fail(ErrorCode::kInvalid, what, "cannot be read", "correct the path");
  }
  if ((facts.st_mode & 077) != 0) {
    return fail(ErrorCode::kInvalid, what, "others may read it", "chmod 600 it");
  }
  std::getline(in, token);
  while (!token.empty() && (token.back() == '\r' || token.back() == ' ')) token.pop_back();
  if (token.size() < 16) {
    return fail(ErrorCode::kInvalid, what, "its first line has fewer than 16 characters",
                "put a long random one there, such as openssl rand -hex 32 prints");
  }
  return token;
}

}  // namespace kvfs::daemon::http

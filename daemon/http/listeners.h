// Opens the sockets the server accepts on.
//
// The unix socket has mode 0600; its directory is made 0700 when missing. A file left there by a
// daemon that died is removed; one that is answered is kBusy; anything but a socket is left alone.
#pragma once

#include <filesystem>
#include <string>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>

#include "codec/base/result.h"

namespace kvfs::daemon::http {

Result<boost::asio::local::stream_protocol::acceptor> listen_unix(
    const boost::asio::any_io_executor& executor, const std::filesystem::path& path);

Result<boost::asio::ip::tcp::acceptor> listen_tcp(const boost::asio::any_io_executor& executor,
                                                  const std::string& host, std::uint16_t port);

// The first line of a file that nobody else may read.
Result<std::string> read_token(const std::filesystem::path& file);

}  // namespace kvfs::daemon::http

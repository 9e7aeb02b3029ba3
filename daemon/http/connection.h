// One client's connection, unix or TCP: reads requests, answers them, in a coroutine on the
// io_context's thread. Handlers run on the workers; nothing here waits for anything but sockets and
// timers. Slow clients run into timeouts; a body may have 64 MiB.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/beast/core/basic_stream.hpp>

#include "daemon/http/call.h"

namespace kvfs::daemon::http {

using Stream = boost::beast::basic_stream<boost::asio::generic::stream_protocol>;

inline constexpr std::uint64_t kMostBodyBytes = 64 << 20;

struct Front {  // shared by all connections, outlives them
  Services& services;
  boost::asio::thread_pool& workers;
  std::string token;     // asked for where peer.local is false; "": none
  bool closing = false;  // the server closes its connections
};

// Returns when the connection is over. The caller closes stream to end it early.
boost::asio::awaitable<void> serve_connection(Stream& stream, Front& front, Peer peer);
// The head of an answer whose body follows in chunks, and pieces of such a body (empty: its end).
// False: the client is gone, or took nothing for 30 s.
boost::asio::awaitable<bool> begin_chunks(Stream& stream, unsigned version);
boost::asio::awaitable<bool> send_chunk(Stream& stream, std::string_view bytes);
// For one too many: reads nothing, says 503, ends.
boost::asio::awaitable<void> turn_away(Stream& stream);

}  // namespace kvfs::daemon::http

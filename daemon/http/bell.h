// Wakes a coroutine that streams to a client: when there is more to send, and when the client went
// away. Owners: the coroutine, the callbacks it left with others, the watch on its socket.
#pragma once

#include <memory>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/steady_timer.hpp>

#include "daemon/http/connection.h"

namespace kvfs::daemon::http {

struct Bell {
  explicit Bell(const boost::asio::any_io_executor& executor) : timer(executor) {}
  boost::asio::steady_timer timer;  // what the coroutine waits for
  bool gone = false;                // the client; of the io_context's thread
};
using SharedBell = std::shared_ptr<Bell>;

void ring(const SharedBell& bell);  // any thread
// A client sends nothing while it listens: when its socket can be read, it is gone.
void watch_client(Stream& stream, const SharedBell& bell);

}  // namespace kvfs::daemon::http

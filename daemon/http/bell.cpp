#include "daemon/http/bell.h"

#include <sys/socket.h>

#include <boost/asio/post.hpp>

namespace kvfs::daemon::http {

void ring(const SharedBell& bell) {
  boost::asio::post(bell->timer.get_executor(), [bell] { bell->timer.cancel(); });
}

// The error is that the server closed the connection.
void watch_client(Stream& stream, const SharedBell& bell) {
  stream.socket().async_wait(
      boost::asio::socket_base::wait_read,
      [bell, handle = stream.socket().native_handle()](boost::system::error_code error) {
        char byte = 0;
        if (error || ::recv(handle, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0) {
          bell->gone = true;
          bell->timer.cancel();
        }
      });
}

}  // namespace kvfs::daemon::http

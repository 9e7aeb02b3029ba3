// Who asked finds the tree on the mount as the answer says it is.
#pragma once

#include <utility>

#include "daemon/http/completion.h"
#include "daemon/http/services.h"

namespace kvfs::daemon::http {

inline boost::asio::awaitable<void> tell_mount(Services& services, StateId state) {
  co_await completion<bool>(
      [&](auto done) { services.state_changed(state, [done = std::move(done)] { done(true); }); });
}

}  // namespace kvfs::daemon::http

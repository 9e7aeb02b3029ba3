// Waits, in a coroutine, for a function that reports through a callback.
//
//   const Result<StateId> id = co_await completion<Result<StateId>>([&](auto done) {
//     sched::create_state(…, std::move(done));
//   });
//
// The callback may come from any thread, once; the coroutine goes on in its own executor.
#pragma once

#include <functional>
#include <memory>
#include <utility>

#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace kvfs::daemon::http {

template <class T, class Start>
boost::asio::awaitable<T> completion(Start start) {
  const auto executor = co_await boost::asio::this_coro::executor;
  auto initiate = [executor, &start](auto handler) {
    // Shared by the callback's copies: std::function must be copyable, the handler is not.
    auto shared = std::make_shared<decltype(handler)>(std::move(handler));
    start(std::function<void(T)>([executor, shared](T value) {
      boost::asio::post(executor, [shared, value = std::move(value)]() mutable {
        std::move (*shared)(std::move(value));
      });
    }));
  };
  co_return co_await boost::asio::async_initiate<const boost::asio::use_awaitable_t<>, void(T)>(
      std::move(initiate), boost::asio::use_awaitable);
}

}  // namespace kvfs::daemon::http

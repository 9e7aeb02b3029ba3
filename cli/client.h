// The daemon's HTTP over its unix socket, as verbs use it. One thread; a connection a call.
//
// Failure: kNotFound when no daemon answers; else the error that the daemon sent.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include <boost/json/object.hpp>

#include "codec/base/bytes.h"
#include "codec/base/result.h"

namespace kvfs::cli {

class Client {
 public:
  explicit Client(std::filesystem::path socket) : socket_(std::move(socket)) {}

  const std::filesystem::path& socket() const { return socket_; }
  bool answers() const;

  Result<boost::json::object> get(const std::string& target) const;
  Result<boost::json::object> send(std::string_view method, const std::string& target,
                                   const boost::json::object& body) const;
  Result<std::string> text(const std::string& target) const;

  // Sends the file that is open there, `size` bytes from where it stands, and gives the answer.
  // on_bytes hears how many have gone, now and then.
  using OnBytes = std::function<void(std::uint64_t done, std::uint64_t size)>;
  Result<boost::json::object> upload(const std::string& target, int fd, std::uint64_t size,
                                     const OnBytes& on_bytes) const;
  // Gives what the daemon sends to `sink`, part by part; kIo: it ended too soon.
  using Sink = std::function<Status(ByteSpan)>;
  Status download(const std::string& target, const Sink& sink, const OnBytes& on_bytes) const;

  // Gives every JSON line of the answer to on_line as it arrives. At the first Ctrl-C on_interrupt
  // says whether it goes on; a second one ends it too: with kCanceled. Without on_interrupt Ctrl-C
  // ends the program.
  Status stream(std::string_view method, const std::string& target, const boost::json::object& body,
                const std::function<void(const boost::json::object&)>& on_line,
                const std::function<bool()>& on_interrupt) const;

 private:
  std::filesystem::path socket_;
};

// Where the daemon is: the flag, KVFS_SOCKET, or the default place of this user.
std::filesystem::path socket_path(const std::string& flag);

// A state's path as the one segment that the daemon's addresses want, after "/v1/states/".
std::string state_target(std::string_view state, std::string_view verb = {});

// The error in an answer's JSON.
Error error_of(const boost::json::object& answer);

}  // namespace kvfs::cli

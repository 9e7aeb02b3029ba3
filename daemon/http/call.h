// A request as handlers see it, and what they answer: plain data, no sockets.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <boost/asio/awaitable.hpp>
#include <boost/json/object.hpp>

#include "codec/base/ids.h"
#include "codec/base/result.h"
#include "daemon/http/services.h"
#include "daemon/http/transfer.h"
#include "engine/store/records.h"

namespace kvfs::daemon::http {

struct Peer {
  std::uint32_t uid = 0;  // of the client on the unix socket, of the daemon on TCP
  std::uint32_t gid = 0;
  bool local = false;  // on the unix socket
};

struct Call {
  std::vector<std::string> captures;         // of the pattern's {…}, decoded
  std::map<std::string, std::string> query;  // decoded
  std::string accept;
  std::string body;
  std::shared_ptr<Upload> upload;  // instead of the body, on routes that take files
  Peer peer;

  // An empty body is an empty object. Strings may hold any bytes: whoever uses them checks.
  Result<boost::json::object> json() const;
  bool asks(const std::string& name) const;  // ?name, ?name=1, ?name=true
};

// Jobs whose replies are sent as they grow; see job_stream.h.
struct Follow {
  StateId state;
  store::JobKind kind = store::JobKind::kAsk;
  std::vector<std::string> jobs;  // names
  bool progress = false;          // tell how far the reading is
  bool watch = false;             // tell each refresh of the KV
};

class ComparisonFeed;  // compare_stream.h

struct Answer {
  enum class Body { kText, kJobs, kEvents, kFile, kComparison };

  unsigned status = 200;
  std::string content_type = "application/json";
  Body kind = Body::kText;
  std::string body;  // kText; kEvents: the state's path they are of, "" for all, see event_stream.h
  std::string allow;  // 405 only
  Follow follow;      // kJobs
  Download download;  // kFile
  std::shared_ptr<ComparisonFeed> comparison;  // kComparison; with the engine's callback
};

Answer json_answer(const boost::json::object& object, unsigned status = 200);
Answer error_answer(const Error& error);

// Runs on a worker thread, may wait for short reads of the store, never for a job.
using Handler = boost::asio::awaitable<Result<Answer>> (*)(Services& services, Call call);

}  // namespace kvfs::daemon::http

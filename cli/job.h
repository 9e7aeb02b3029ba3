// Runs a job and shows it: text to stdout as it arrives, how far the reading is on a terminal's
// stderr, Ctrl-C cancels.
#pragma once

#include <string>

#include <boost/json/object.hpp>

#include "cli/client.h"
#include "codec/base/result.h"

namespace kvfs::cli {

inline constexpr int kExitInterrupted = 130;  // as a shell has it

struct JobRequest {
  std::string state;  // path below states/
  std::string verb;   // "ask", …
  boost::json::object body;
  bool watch = false;    // show each refresh of the KV: a chart on a terminal's stderr, else a line
  bool json = false;     // print the daemon's lines as they are
  bool several = false;  // several replies: each under a line with its job's name
};

// 0, kExitInterrupted after Ctrl-C, or the first job's error.
Result<int> run_job(const Client& client, JobRequest request);

}  // namespace kvfs::cli

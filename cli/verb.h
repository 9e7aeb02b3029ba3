// A verb of kvfs: its options and what it does. One file each under verbs/; the table is verbs.cpp.
#pragma once

#include <memory>
#include <span>

#include "cli/client.h"
#include "cli/options.h"
#include "codec/base/result.h"

namespace kvfs::cli {

class Verb {
 public:
  virtual ~Verb() = default;
  // Binds options to members, once, before parsing.
  virtual void options(Options& options) = 0;
  // The exit code, or the error to print (then it is 1).
  virtual Result<int> run(const Client& client) = 0;
};

struct VerbEntry {
  const char* name;
  const char* summary;
  std::unique_ptr<Verb> (*make)();
};
std::span<const VerbEntry> verbs();

// Parses and runs; prints errors; returns the exit code. 2: usage.
int run(int argc, const char* const* argv);

}  // namespace kvfs::cli

// Result<T>: a value or an Error, the one way the code reports failure.
//
// An Error says what was attempted and on what, why it failed, and what the user can do.
// It is printed as "what: why; way out". Codes are the small set that the edges (fs/, HTTP, exit
// codes) translate; nothing else of the code knows errno or HTTP status. Values, no allocation
// beyond the strings; safe from any thread.
#pragma once

#include <string>
#include <utility>

#include <tl/expected.hpp>

namespace kvfs {

enum class ErrorCode {
  kInvalid,      // the input is wrong and will stay so
  kNotFound,     // a name, id, model or file is not there
  kExists,       // the name is taken
  kNotEmpty,     // children, snapshots or users' files are in the way
  kBusy,         // in use by another job or another daemon
  kAgain,        // may work later: queue full, copy incomplete
  kPermission,   // not the owner, or pinned
  kTooLarge,     // more tokens or bytes than fit
  kNoSpace,      // the disk or the map is full
  kCorrupt,      // stored bytes fail their checksum or their format
  kUnsupported,  // understood, but not to be had here
  kCanceled,     // stopped at the user's word
  kInterrupted,  // stopped by shutdown; will be taken up again
  kIo,           // the system refused: disk, network, device
  kInternal,     // a bug
};

struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string what;     // what was attempted, on what: "prompt of job q1"
  std::string why;      // "9,000 tokens, the context leaves 8,192"
  std::string way_out;  // "shorten it or set truncate=tail"; may be empty

  std::string message() const;  // "what: why; way out"
};

// The code's lower-case word ("not found"), for logs and JSON.
const char* to_string(ErrorCode code);

template <class T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

// return fail(ErrorCode::kInvalid, "what", "why", "way out");
inline tl::unexpected<Error> fail(ErrorCode code, std::string what, std::string why,
                                  std::string way_out = {}) {
  return tl::unexpected<Error>(
      Error{code, std::move(what), std::move(why), std::move(way_out)});
}
inline tl::unexpected<Error> fail(Error error) { return tl::unexpected<Error>(std::move(error)); }

}  // namespace kvfs

// KVFS_TRY(statement that yields a Status or Result): returns its error from the enclosing function.
// KVFS_ASSIGN(auto x, expression that yields Result<T>): declares or assigns x, or returns the error.
#define KVFS_CONCAT_INNER(a, b) a##b
#define KVFS_CONCAT(a, b) KVFS_CONCAT_INNER(a, b)
#define KVFS_TRY(expression)                                                  \
  do {                                                                        \
    auto&& kvfs_status = (expression);                                        \
    if (!kvfs_status) return ::kvfs::fail(std::move(kvfs_status).error());    \
  } while (0)
#define KVFS_ASSIGN_INNER(temporary, target, expression)                      \
  auto temporary = (expression);                                              \
  if (!temporary) return ::kvfs::fail(std::move(temporary).error());          \
  target = *std::move(temporary)
#define KVFS_ASSIGN(target, expression) \
  KVFS_ASSIGN_INNER(KVFS_CONCAT(kvfs_result_, __LINE__), target, expression)

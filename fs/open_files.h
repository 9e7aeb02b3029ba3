// Users' files that somebody has open: one FileBuffer each, whoever opens it and however often.
//
// Any thread; one lock, held during a short read of the store. Ownership: a buffer belongs to the
// handles and writes that use it; this table only knows it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "codec/base/ids.h"
#include "codec/base/result.h"

namespace kvfs::fs {

class FileBuffer;
struct Context;

class OpenFiles {
 public:
  static constexpr std::uint64_t kAllBytes = std::uint64_t{256} << 20;

  // The buffer of a file, made where there is none. kNotFound: no name leads to it any more.
  Result<std::shared_ptr<FileBuffer>> get(Context& context, FileId id);
  std::shared_ptr<FileBuffer> find(FileId id) const;  // null: nobody has it open
  std::vector<std::shared_ptr<FileBuffer>> all() const;
  void closed(FileId id);  // its buffer is no more
  // No name leads to it since a moment: it goes now, or with the last that has it open.
  void unlinked(Context& context, FileId id);

  // Bytes written and not on disk yet, all buffers together.
  void count(std::int64_t bytes) { bytes_ += bytes; }
  bool full() const { return bytes_ > static_cast<std::int64_t>(kAllBytes); }

 private:
  mutable std::mutex mutex_;  // guards buffers_
  std::unordered_map<FileId, std::weak_ptr<FileBuffer>> buffers_;
  std::atomic<std::int64_t> bytes_ = 0;
};

// Drops a file that no name leads to.
void reap(Context& context, FileId id);

// Answers when the store has what was written into the files beside a state, be they open: a fork
// or a snapshot begins with that.
void store_files_of(Context& context, StateId state, std::function<void(Status)> done);

}  // namespace kvfs::fs

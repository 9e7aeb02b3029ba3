// A user's file while somebody has it open: what was written and is not on disk yet, over what is.
// Written pieces go to the store as they come, so memory is bounded; sync() answers when all that
// was written before it is on disk, which close and fsync wait for. What are no contents (times,
// owner, its birth) is known to the store then, and on disk soon; fsync waits for that, too.
//
// Any thread; its lock is held during short reads of the store and for no call to anybody else.
// Failure: what could not be stored (a full disk) stays here and is tried again at the next sync;
// who waits for one is told.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "engine/store/records.h"
#include "engine/store/views.h"
#include "fs/node.h"

namespace kvfs::fs {

struct Context;

class FileBuffer : public std::enable_shared_from_this<FileBuffer> {
 public:
  static constexpr std::uint64_t kFlushAt = std::uint64_t{4} << 20;  // bytes not on their way
  static constexpr std::uint64_t kMost = std::uint64_t{16} << 20;    // more, and writers wait
  static constexpr std::uint64_t kMaxSize = std::uint64_t{1} << 62;

  FileBuffer(Context& context, FileId id, store::FileNode node);
  ~FileBuffer();

  FileId id() const { return id_; }
  store::FileNode node() const;  // as it is seen: size and times of what was written, too
  Result<Bytes> read(std::uint64_t offset, std::size_t size);
  void write(std::uint64_t offset, ByteSpan bytes, Answer<std::size_t> done);
  Status resize(std::uint64_t size);
  Status change(const Changes& changes);
  void sync(Done done);
  void reach_disk(Done done);  // with all that is no contents
  Result<std::optional<std::uint64_t>> seek(std::uint64_t offset, bool data);
  void writer(int more);  // one that has not closed it yet, or one less
  bool being_written() const;
  void unlinked();  // no name leads to it: it goes with this buffer
  // It is another file's from now on, whole; what was written goes. For the store's `done`.
  void replaced(store::FileNode node);

 private:
  using Waiters = std::vector<Done>;
  // All with the lock held.
  Result<std::optional<Bytes>> piece(std::uint64_t number);  // nothing: zeros, or the source
  Result<Bytes> whole_piece(std::uint64_t number);
  Status read_source(std::uint64_t offset, MutableByteSpan out);
  Status put(std::uint64_t offset, ByteSpan bytes);
  void touched();
  void forget_dirty(std::uint64_t from);
  void start_flush();
  Waiters flushed(const Status& status);

  void flush_ended(const Status& status);

  Context& context_;
  const FileId id_;
  mutable std::mutex mutex_;  // guards everything below
  store::FileNode node_;
  bool changed_ = false;                  // node_, and not on its way
  bool soon_ = true;                      // the store may know it and have it on disk soon
  std::uint64_t stored_size_;             // as the store knows it
  std::map<std::uint64_t, Bytes> dirty_;  // by number
  std::uint64_t dirty_bytes_ = 0;
  std::uint64_t cut_ = kNever;                        // below dirty_, pieces from here on are zeros
  std::shared_ptr<const store::FileWrite> flushing_;  // with the store's writer; null: none is
  std::uint64_t flushing_bytes_ = 0;
  Waiters waiting_now_, waiting_next_;  // for the flush under way, for the one after it
  int writers_ = 0;
  bool timer_ = false;  // a flush is due in a while
  std::shared_ptr<store::FileView> source_;

  static constexpr std::uint64_t kNever = ~std::uint64_t{0};
};

}  // namespace kvfs::fs

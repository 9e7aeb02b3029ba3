// Reads blocks' KV from the store: a few threads fetch and decode segments. Either they put each
// where it belongs themselves (a model whose kv_room allows it), or the engine thread takes them,
// in the order in which kv_in wants them (by layer, then by block).
//
// poll, take_back and done: one thread. wake is called from the reading threads when there is
// something to poll, or all is put.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "engine/store/store.h"

namespace kvfs::sched {

class KvReader {
 public:
  // One of them, where the reading threads put pieces in, several at once: as they are kept, or
  // decoded. Neither: pieces come by poll().
  struct Put {
    std::function<Status(const chunk::StoredPiece&)> stored;
    std::function<Status(const KvPiece&)> decoded;
    explicit operator bool() const { return stored || decoded; }
  };

  KvReader(store::Store& store, const std::vector<store::BlockRecord>& blocks,
           std::function<void()> wake, Put put = {});
  ~KvReader();
  KvReader(const KvReader&) = delete;
  KvReader& operator=(const KvReader&) = delete;

  std::optional<Result<KvPiece>> poll();  // nullopt: not there yet, or done; put: errors alone
  void take_back(KvPiece used);           // its memory holds a piece to come
  bool done() const;

 private:
  void read_ahead();
  template <class Piece, class Read>
  void read_and_put(const std::function<Status(const Piece&)>& put, const Read& read);
  void read_and_put();

  store::Store& store_;
  std::vector<store::Segment> order_;  // not changed once the threads run
  std::function<void()> wake_;
  const Put put_;

  mutable std::mutex mutex_;  // guards everything down to threads_
  std::condition_variable room_;
  std::vector<std::optional<Result<KvPiece>>> slots_;  // of order_, emptied when polled
  std::vector<KvPiece> spare_;
  std::size_t next_read_ = 0;
  std::size_t out_ = 0;           // polled, or put
  std::optional<Error> failure_;  // of the first that could not be put
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace kvfs::sched

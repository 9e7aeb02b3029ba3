// Pages on their way to the host while the device goes on: a thread and a stream of their own take
// them one after the other, a page in one copy to pinned memory and from there into pieces.
//
// send() is the engine thread's; what it gives may be taken by any. A page that is being sent has
// two owners, so whoever would write into it copies it first. The page's pool outlives this.
#pragma once

#include <cuda_runtime.h>

#include <condition_variable>
#include <deque>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/model/cuda/pages.h"
#include "engine/model/cuda/pinned.h"

namespace kvfs::model::cuda {

class PagesOut {
 public:
  PagesOut(const PageShape& shape, int device);
  ~PagesOut();  // what is still waiting fails
  PagesOut(const PagesOut&) = delete;
  PagesOut& operator=(const PagesOut&) = delete;

  // The page's first `count` positions, the first of them `begin`, as they are when `after` has
  // done what was launched on it so far.
  Result<std::unique_ptr<KvOut>> send(std::shared_ptr<const PagePool::Page> page, Position begin,
                                      int count, cudaStream_t after);

 private:
  using Pieces = Result<std::vector<KvPiece>>;
  struct Page {
    std::shared_ptr<const PagePool::Page> page;  // with the sequences that have it
    Position begin;
    int count;
    cudaEvent_t ready;
    std::promise<Pieces> done;
  };
  void loop();
  Pieces copy(const Page& page);
  KvPiece piece(int layer, const Page& page) const;

  const PageShape shape_;
  const int device_;
  cudaStream_t stream_ = nullptr;
  Pinned staging_;
  std::byte* memory_ = nullptr;  // staging_'s; null: none could be had

  std::mutex mutex_;  // guards what follows
  std::condition_variable wake_;
  std::deque<Page> queue_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace kvfs::model::cuda

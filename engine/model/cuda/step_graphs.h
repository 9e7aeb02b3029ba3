// Recorded steps: hundreds of small launches replayed as one, since launching them one by one takes
// longer than what they do.
//
// A recording holds addresses and grids, not contents: it fits every step of the same key as long
// as the buffers that its kernels read stay where they are. Engine thread only.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <utility>

namespace kvfs::model::cuda {

class StepGraphs {
 public:
  struct Key {
    int rows;
    int shared;  // pages, whatever they are counted in
    int single;
    int pages;
    bool draws = false;
    std::uint32_t pruned = 0;  // rows, by bit
    bool operator==(const Key&) const = default;
  };

  // Does on `stream` what launches does. The first step of a key is launched plainly (the driver
  // loads kernels on their first launch, which cannot be recorded), the second is recorded.
  // launches must do nothing but launch; its exceptions pass through. The error of recording or
  // replaying.
  cudaError_t run(Key key, cudaStream_t stream, const std::function<void()>& launches);
  void clear() { steps_.clear(); }  // the buffers have moved

 private:
  struct Free {
    void operator()(cudaGraphExec_t graph) const { cudaGraphExecDestroy(graph); }
  };
  using Graph = std::unique_ptr<CUgraphExec_st, Free>;
  struct Step {
    Key key;
    Graph graph;  // null after the first time
  };

  static constexpr std::size_t kKept = 64;
  std::deque<Step> steps_;  // newest first
};

}  // namespace kvfs::model::cuda

#include "engine/model/cuda/step_graphs.h"

#include <algorithm>

namespace kvfs::model::cuda {
namespace {

// Ends the recording that an exception leaves open.
class Recording {
 public:
  explicit Recording(cudaStream_t stream) : stream_(stream) {}
  ~Recording() {
    if (open_) cudaGraphDestroy(end().second);
  }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  cudaError_t begin() {
    const cudaError_t error = cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal);
    open_ = error == cudaSuccess;
    return error;
  }
  std::pair<cudaError_t, cudaGraph_t> end() {
    open_ = false;
    cudaGraph_t graph = nullptr;
    const cudaError_t error = cudaStreamEndCapture(stream_, &graph);
    return {error, graph};
  }

 private:
  cudaStream_t stream_;
  bool open_ = false;
};

}  // namespace

cudaError_t StepGraphs::run(Key key, cudaStream_t stream, const std::function<void()>& launches) {
  const auto known = std::ranges::find(steps_, key, &Step::key);
  if (known == steps_.end()) {
    launches();
    if (steps_.size() == kKept) steps_.pop_back();
    steps_.push_front({key, nullptr});
    return cudaSuccess;
  }
  if (known->graph == nullptr) {
    Recording recording(stream);
    if (const cudaError_t error = recording.begin(); error != cudaSuccess) return error;
    launches();
    const auto [ended, graph] = recording.end();
    if (ended != cudaSuccess) return ended;
    cudaGraphExec_t made = nullptr;
    const cudaError_t error = cudaGraphInstantiate(&made, graph, 0);
    cudaGraphDestroy(graph);
    if (error != cudaSuccess) return error;
    known->graph.reset(made);
  }
  return cudaGraphLaunch(known->graph.get(), stream);
}

}  // namespace kvfs::model::cuda

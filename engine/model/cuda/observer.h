// What a sequence on the device holds, and what its last tokens' queries give each entry, for
// methods of pruning: tokens are read again on a fork, with a watch (forward.h). Engine thread
// only.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/model/cuda/forward.h"
#include "engine/model/model.h"

namespace kvfs::model::cuda {

struct ObservedModel {
  int layers;
  int heads;
  int kv_heads;
  std::vector<int> windows;  // by layer; 0: none
  DType dtype;
};

// Reads tokens at the fork's next positions.
using WatchedRead = std::function<Status(DeviceSequence& fork, std::span<const TokenId> tokens,
                                         const Watch& watch)>;

// Does work on the model's stream, and turns exceptions into errors.
using Guard = std::function<Status(const std::function<Status()>& work)>;

// As Model::look_again. kUnsupported: kExpectedQueries, kReconstruction.
Result<std::unique_ptr<Observer>> make_observer(const ObservedModel& model,
                                                const DeviceSequence& sequence, prune::Plan plan,
                                                at::Device device, WatchedRead read, Guard guard);

}  // namespace kvfs::model::cuda

// What a sequence on the device holds, and what queries give each entry, for methods of pruning:
// tokens are read again on a fork, with a watch (watch.h). Engine thread only.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/model/cuda/forward.h"
#include "engine/model/model.h"
#include "engine/model/places.h"

namespace kvfs::model::cuda {

// What pruning asks of a model, by layer from the bottom.
struct ObservedModel {
  HeadShape heads;
  DType dtype;
  float scale;  // of scores
  Turnable turnable;
  std::vector<Turning> turnings;  // the forward pass's memory

  int layers() const { return static_cast<int>(turnable.windows.size()); }
};

// Reads tokens at the fork's next positions.
using WatchedRead = std::function<Status(DeviceSequence& fork, std::span<const TokenId> tokens,
                                         const Watch& watch)>;

// Does work on the model's stream, and turns exceptions into errors.
using Guard = std::function<Status(const std::function<Status()>& work)>;

// As Model::look_again. model and sequence outlive it.
Result<std::unique_ptr<Observer>> make_observer(const ObservedModel& model,
                                                const DeviceSequence& sequence, prune::Plan plan,
                                                at::Device device, WatchedRead read, Guard guard);

}  // namespace kvfs::model::cuda

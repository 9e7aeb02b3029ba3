// The generated path's fast mode in the engine: decode_step.h's launches on a model's weights,
// recorded once a shape of step and replayed. Steps that draw by themselves may be launched ahead:
// what the host writes for a step lies in one of kDrawnSteps slots, and so do the tokens that it
// reads behind the device. Engine thread only; throws libtorch's exceptions and ForwardError.
#pragma once

#include <ATen/ATen.h>

#include <array>
#include <cstddef>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "engine/model/cuda/decode_step.h"
#include "engine/model/cuda/draw.h"
#include "engine/model/cuda/forward.h"
#include "engine/model/cuda/pages.h"
#include "engine/model/cuda/pinned.h"
#include "engine/model/cuda/step_graphs.h"
#include "engine/model/cuda/weights.h"

namespace kvfs::model::cuda {

class Generator {
 public:
  // weights must outlive it.
  Generator(const LlamaSizes& sizes, const Weights& weights, at::Device device);
  ~Generator();
  Generator(const Generator&) = delete;
  Generator& operator=(const Generator&) = delete;
  // As Forward's.
  void generate(std::span<const Forward::Row> rows);
  void launch(std::span<const Forward::AheadRow> rows);
  std::vector<TokenId> hear();

 private:
  struct PlanRow {
    const DeviceSequence* sequence;
    std::int32_t token;  // StepRows'
  };
  struct Plan {
    std::vector<PageWork> shared;
    std::vector<PageWork> single;
    std::uint32_t pruned = 0;  // bit r: row r, whose pages are in no list
    std::vector<void*> addresses;
    std::vector<RowPlace> places;
    int pages = 0;
  };

  static Plan plan(std::span<const PlanRow> rows);
  // What the step will leave of it.
  Bytes upload(std::span<const PlanRow> rows, const Plan& plan, std::span<const DrawRow> draws,
               std::span<const LogitChange> changes);
  // To the logits, and where there are draws to the next tokens.
  void step(std::span<const PlanRow> rows, std::span<const DrawRow> draws,
            std::span<const LogitChange> changes);
  std::int32_t* heard_tokens() { return reinterpret_cast<std::int32_t*>(heard_.room(1)); }
  at::Tensor make(std::int64_t count, at::ScalarType type);
  // Grows a buffer; recorded steps knew the old one.
  void make_room(at::Tensor& buffer, std::int64_t bytes);

  at::Device device_;
  DecodeWeights weights_;
  DecodeBuffers buffers_{};
  std::vector<at::Tensor> owned_;  // what buffers_ points to
  at::Tensor scratch_, uploaded_;
  struct Slot {
    Pinned to_device;
    cudaEvent_t done = nullptr;
  };
  std::array<Slot, kDrawnSteps> slots_;
  Pinned from_device_, heard_;  // heard_: [kDrawnSteps][kMaxBatch]
  std::int32_t* drawn_ = nullptr;
  struct Launched {
    std::size_t slot;
    int rows;
  };
  std::deque<Launched> launched_;
  Bytes there_;  // what the latest step leaves of what was uploaded; empty: not known
  DrawStep draw_{};
  std::size_t next_slot_ = 0;
  StepRows step_{};
  DecodeHistory history_{};
  StepGraphs graphs_;
};

}  // namespace kvfs::model::cuda

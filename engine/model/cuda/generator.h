// The generated path's fast mode in the engine: decode_step.h's launches on a model's weights,
// recorded once a shape of step and replayed. Engine thread only; throws libtorch's exceptions and
// ForwardError.
#pragma once

#include <ATen/ATen.h>

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "engine/model/cuda/decode_step.h"
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
  // As Forward::generate.
  void generate(std::span<const Forward::Row> rows);

 private:
  struct Plan {
    std::vector<PageWork> shared;
    std::vector<PageWork> single;
    std::vector<void*> addresses;
    std::vector<RowPlace> places;
    int pages = 0;
  };

  static Plan plan(std::span<const Forward::Row> rows);
  void upload(std::span<const Forward::Row> rows, const Plan& plan);
  at::Tensor make(std::int64_t count, at::ScalarType type);
  // Grows a buffer; recorded steps knew the old one.
  void make_room(at::Tensor& buffer, std::int64_t bytes);

  at::Device device_;
  DecodeWeights weights_;
  DecodeBuffers buffers_{};
  std::vector<at::Tensor> owned_;  // what buffers_ points to
  at::Tensor scratch_, uploaded_;
  Pinned to_device_, from_device_;
  StepRows step_{};
  DecodeHistory history_{};
  StepGraphs graphs_;
};

}  // namespace kvfs::model::cuda

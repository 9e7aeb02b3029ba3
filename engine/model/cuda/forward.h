// The forward pass on the device, for rows of both paths. Engine thread only; throws libtorch's
// exceptions, and ForwardError for a launch that failed.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <span>
#include <stdexcept>
#include <vector>

#include "engine/model/cuda/kernels.h"
#include "engine/model/cuda/pages.h"
#include "engine/model/cuda/weights.h"

namespace kvfs::model::cuda {

struct ForwardError : std::runtime_error {
  explicit ForwardError(cudaError_t error) : std::runtime_error(cudaGetErrorString(error)) {}
};

class Forward {
 public:
  virtual ~Forward() = default;

  // Reads tokens at the sequence's next positions, whose pages are reserved; they must not cross
  // more than most_grids() − 1 multiples of kGridRows. logits: empty, or [vocab] for the last
  // token.
  virtual void read(const DeviceSequence& sequence, std::span<const TokenId> tokens,
                    std::span<float> logits) = 0;
  virtual int most_grids() const { return 1; }

  // Generates: one token for each of up to kMaxBatch sequences; logits one after the other, [vocab]
  // each.
  struct Row {
    const DeviceSequence* sequence;
    TokenId token;
    std::span<float> logits;
  };
  virtual void generate(std::span<const Row> rows) = 0;

  // Model::most_ahead, launch and hear. launch tells the sequences where their tokens are drawn.
  struct AheadRow {
    DeviceSequence* sequence;
    const AheadItem* item;
  };
  virtual int most_ahead() const { return 0; }
  virtual void launch(std::span<const AheadRow> rows) { (void)rows; }
  virtual std::vector<TokenId> hear() { return {}; }
};

// The reference mode's where the pages are fp32, the fast mode's where they are bf16. config and
// weights must outlive it.
std::unique_ptr<Forward> make_forward(const LlamaSizes& config, const Weights& weights,
                                      const PageShape& pages, at::Device device);

}  // namespace kvfs::model::cuda

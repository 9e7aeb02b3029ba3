// The forward pass on the device, for rows of both paths. Engine thread only; throws libtorch's
// exceptions, and ForwardError for a launch that failed.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <vector>

#include "engine/model/cuda/kernels.h"
#include "engine/model/cuda/pages.h"
#include "engine/model/cuda/watch.h"
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
  // token. watch: null, or what is watched; the rows' results may then differ in their last bits.
  virtual void read(const DeviceSequence& sequence, std::span<const TokenId> tokens,
                    std::span<float> logits, const Watch* watch = nullptr) = 0;
  virtual int most_grids() const { return 1; }
  // How a layer turns its keys; its memory lives as long as this.
  virtual Turning turning(int layer) const = 0;

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

// A plain llama's, in bf16 or fp16.
std::unique_ptr<Forward> make_fast_forward(const LlamaSizes& sizes, Weights weights,
                                           const PageShape& pages, at::Device device);
// Bytes of device memory that it takes beside its weights, at most.
std::uint64_t fast_forward_memory(const LlamaSizes& sizes);

}  // namespace kvfs::model::cuda

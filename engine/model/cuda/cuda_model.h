// The Llama family on a CUDA device: libtorch's GEMMs for reading, own kernels for everything else.
//
// Reading (prefill) works on a fixed grid: a token at position p sits in row p % kGridRows of a
// matrix that always has kGridRows rows, so cuBLAS always sees one shape, and a row's bits cannot
// depend on how the text was cut. Generating (decode) never meets cuBLAS. Attention is summed page
// by page, pages in ascending order, on both paths.
#pragma once

#include <memory>
#include <string>

#include "engine/model/cuda/decode.h"
#include "engine/model/cuda/llama_sizes.h"
#include "engine/model/model.h"

namespace kvfs::model::cuda {

inline constexpr int kGridRows = 512;

// GPUs of this machine. kUnsupported: the driver is missing or too old.
Result<int> device_count();

// kUnsupported: a head width the kernels do not know; kTooLarge: weights that do not fit the
// device.
Result<std::unique_ptr<Model>> load_cuda_model(const ModelCard& card, const LoadOptions& options,
                                               int index);

// A model of random weights, to measure the speed of a published shape without its files. It has no
// fingerprint and no tokenizer. kind: of its matrices, in the fast mode.
Result<std::unique_ptr<Model>> make_random_cuda_model(const std::string& name,
                                                      const LlamaSizes& sizes, bool tied,
                                                      Compute compute, WeightKind kind, int index);

}  // namespace kvfs::model::cuda

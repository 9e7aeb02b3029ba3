// The forward pass of any Architecture, executed as cpu/forward.h does, with the general kernels:
// the reference mode's (fp32), and the fast mode's (bf16 or fp16) where the fast kernels do not
// know the family. Experts' rows are multiplied as generated ones are, so that a row's bits do not
// depend on how many others chose the expert.
#pragma once

#include <memory>

#include "engine/model/cuda/forward.h"
#include "engine/model/cuda/general_weights.h"

namespace kvfs::model::cuda {

// Multiplies in the weights' type. gemm: cuBLAS knows that on this device (no bf16 before sm_80);
// else prompts are read sixteen rows at a time.
std::unique_ptr<Forward> make_general_forward(Architecture model, GeneralWeights weights,
                                              const PageShape& pages, at::Device device, bool gemm);

}  // namespace kvfs::model::cuda

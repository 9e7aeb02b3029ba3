// Model on the CPU: the fast kernels, or the reference mode.
#pragma once

#include <memory>

#include "engine/model/cpu/kernels.h"
#include "engine/model/model.h"

namespace kvfs::model::cpu {

// kTooLarge before anything is allocated when the weights do not fit. kernels: for tests;
// best_kernels() otherwise.
Result<std::unique_ptr<Model>> load_cpu_model(const ModelCard& card, const LoadOptions& options,
                                              const Kernels& kernels);

}  // namespace kvfs::model::cpu

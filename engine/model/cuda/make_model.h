// From a forward pass to a model: what the loaders (load.cpp) use.
#pragma once

#include <ATen/ATen.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAStream.h>

#include <memory>
#include <string>

#include "engine/model/cuda/forward.h"
#include "engine/model/cuda/observer.h"
#include "engine/model/cuda/pages.h"
#include "engine/model/model.h"

namespace kvfs::model::cuda {

// The edge that libtorch's exceptions do not cross.
template <class F>
auto guarded(const std::string& what, F&& body) -> decltype(body()) {
  try {
    return body();
  } catch (const c10::OutOfMemoryError&) {
    return fail(ErrorCode::kTooLarge, what, "the device is out of memory",
                "end other jobs or programs on it, or lower --kv-budget");
  } catch (const std::exception& error) {
    const std::string text = error.what();
    return fail(ErrorCode::kIo, what, text.substr(0, text.find('\n')),
                "restart kvfsd; if it happens again, run with --device cpu");
  }
}

// budget: bytes of KV.
std::unique_ptr<Model> make_cuda_model(ModelInfo info, ObservedModel observed,
                                       std::unique_ptr<Forward> forward, const PageShape& pages,
                                       at::Device device, c10::cuda::CUDAStream stream,
                                       std::uint64_t budget);

}  // namespace kvfs::model::cuda

// Memory of the host that copies to and from the device need not stage.
#pragma once

#include <cuda_runtime.h>

#include <bit>
#include <cstddef>
#include <memory>

namespace kvfs::model::cuda {

class Pinned {
 public:
  // At least so many bytes; their contents are lost when there were fewer. Null: none could be had.
  std::byte* room(std::size_t bytes) {
    if (bytes > size_) {
      void* memory = nullptr;
      memory_.reset();
      size_ = 0;
      if (cudaMallocHost(&memory, std::bit_ceil(bytes)) != cudaSuccess) return nullptr;
      memory_.reset(static_cast<std::byte*>(memory));
      size_ = std::bit_ceil(bytes);
    }
    return memory_.get();
  }

 private:
  struct Unpin {
    void operator()(std::byte* memory) const { cudaFreeHost(memory); }
  };
  std::unique_ptr<std::byte, Unpin> memory_;
  std::size_t size_ = 0;
};

}  // namespace kvfs::model::cuda

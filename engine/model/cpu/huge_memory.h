// Memory that many kernels stream through, in huge pages where the system grants them: weights in 4 KiB
// pages made a decode step 4 % longer (SmolLM2-135M Q4_1, Zen 3).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace kvfs::model::cpu {

using HugeMemory = std::unique_ptr<std::uint8_t[], void (*)(std::uint8_t*)>;

// At least bytes, uninitialized, aligned to 64; to 2 MiB from there on. Throws std::bad_alloc.
HugeMemory allocate_huge(std::size_t bytes);

// Hands out pieces of few large allocations, all freed together. One thread.
class Arena {
 public:
  // Zeros, aligned to 64.
  std::uint8_t* take(std::size_t bytes);

 private:
  std::vector<HugeMemory> chunks_;
  std::uint8_t* at_ = nullptr;
  std::size_t left_ = 0;
};

}  // namespace kvfs::model::cpu

#include "engine/model/cpu/huge_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

namespace kvfs::model::cpu {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kChunk = std::size_t{32} << 20;

std::size_t rounded(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

void free_memory(std::uint8_t* memory) { std::free(memory); }

}  // namespace

HugeMemory allocate_huge(std::size_t bytes) {
  const std::size_t unit = bytes < kHugePage ? kAlignment : kHugePage;
  const std::size_t whole = rounded(bytes, unit);
  auto* const memory = static_cast<std::uint8_t*>(std::aligned_alloc(unit, whole));
  if (memory == nullptr) throw std::bad_alloc();
  // A wish: what it saves is time alone.
  if (unit == kHugePage) ::madvise(memory, whole, MADV_HUGEPAGE);
  return {memory, free_memory};
}

std::uint8_t* Arena::take(std::size_t bytes) {
  const std::size_t size = rounded(bytes, kAlignment);
  if (size > left_) {
    left_ = std::max(size, kChunk);
    chunks_.push_back(allocate_huge(left_));
    at_ = chunks_.back().get();
  }
  std::uint8_t* const piece = at_;
  at_ += size;
  left_ -= size;
  std::memset(piece, 0, size);
  return piece;
}

}  // namespace kvfs::model::cpu

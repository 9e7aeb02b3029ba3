// What one KV head of one layer has in a page, whole or sparse.
#pragma once

#include "engine/model/cuda/kernels.h"
#include "engine/model/cuda/sparse_page.h"

namespace kvfs::model::cuda {

template <class T>
struct PageEntries {
  T* keys;  // [count][width]
  T* values;
  const std::uint8_t* slots;  // [count]; null: entry i is at slot i
  int count;

  __device__ int slot(int entry) const { return slots == nullptr ? entry : slots[entry]; }
  // Of a slot at which the history goes on.
  __device__ int newest(int slot) const { return slots == nullptr ? slot : count - 256 + slot; }
};

template <class T>
__device__ PageEntries<T> entries_of(void* page, const KvPlace& kv, const HeadShape& shape,
                                     int kv_head) {
  const auto address = reinterpret_cast<std::uintptr_t>(page);
  const std::int64_t side_elements = std::int64_t{256} * shape.width;
  if ((address & kSparse) == 0) {
    T* base = static_cast<T*>(page);
    return {base + kv.key_offset + kv_head * side_elements,
            base + kv.value_offset + kv_head * side_elements, nullptr, 256};
  }
  auto* bytes = reinterpret_cast<std::uint8_t*>(address - kSparse);
  const auto* header = reinterpret_cast<const SparseHeader*>(bytes);
  const auto* begins = reinterpret_cast<const std::int32_t*>(header + 1);
  const auto layer = static_cast<int>(kv.key_offset / (2 * shape.kv_heads * side_elements));
  const int side = layer * shape.kv_heads + kv_head;
  const std::int64_t begin = begins[side];
  return {reinterpret_cast<T*>(bytes + header->keys) + begin * shape.width,
          reinterpret_cast<T*>(bytes + header->values) + begin * shape.width,
          bytes + header->slots + begin, begins[side + 1] - begins[side]};
}

}  // namespace kvfs::model::cuda

// The order in which one head's keys and values lie (kv_pages.h), and the way between it and plain
// rows [count, width].
//
// Element: std::uint16_t (bf16) or float. Pure, any thread.
#pragma once

#include <cstdint>

namespace kvfs::model::cpu {

struct HeadMemory {
  std::uint8_t* keys;    // [tiles, width, 32]
  std::uint8_t* values;  // [width / 32, stride, 32]
  int stride;            // slots from one panel of values to the next
};

// One position's key and value, fp32, rounded to Element.
template <class Element>
void put_position(const HeadMemory& to, int width, int slot, const float* key, const float* value);

// Copies the slots first … first + count: out of the memory, or into it.
template <class Element, bool kOut>
void exchange(const HeadMemory& memory, int width, int first, int count, std::uint8_t* plain_keys,
              std::uint8_t* plain_values);

// Copies one slot to another, bit for bit.
template <class Element>
void copy_slot(const HeadMemory& from, int from_slot, const HeadMemory& to, int to_slot, int width);

}  // namespace kvfs::model::cpu

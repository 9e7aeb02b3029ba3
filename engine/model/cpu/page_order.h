// The order in which a page holds one head's keys and values (kv_pages.h), and the way between it
// and plain rows [count, width].
//
// Element: std::uint16_t (bf16) or float. keys, values: a page's side each. Pure, any thread.
#pragma once

#include <cstdint>

namespace kvfs::model::cpu {

// One position's key and value, fp32, rounded to Element.
template <class Element>
void put_position(std::uint8_t* keys, std::uint8_t* values, int width, int slot, const float* key,
                  const float* value);

// Copies `count` positions from slot 0 on: out of the page, or into it.
template <class Element, bool kOut>
void exchange(std::uint8_t* keys, std::uint8_t* values, int width, int count,
              std::uint8_t* plain_keys, std::uint8_t* plain_values);

}  // namespace kvfs::model::cpu

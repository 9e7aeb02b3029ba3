#include "engine/model/cpu/page_order.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "engine/model/cpu/kernels.h"
#include "engine/model/dequantize.h"

namespace kvfs::model::cpu {
namespace {

std::size_t key_index(int width, int slot, int dimension, bool bf16) {
  const int in_tile = slot % kPanel;
  const int column = bf16 ? bf16_slot(in_tile) : in_tile;
  return static_cast<std::size_t>((slot / kPanel * width + dimension) * kPanel + column);
}
std::size_t value_index(int stride, int slot, int dimension, bool bf16) {
  const int in_tile = dimension % kPanel;
  const int column = bf16 ? bf16_slot(in_tile) : in_tile;
  return static_cast<std::size_t>((dimension / kPanel * stride + slot) * kPanel + column);
}

template <class Element>
Element narrowed(float x) {
  if constexpr (sizeof(Element) == 2)
    return float_to_bf16(x);
  else
    return x;
}

// Copies between the page's order and plain rows, either way.
template <class Element, bool kOut>
void exchange_one(Element* inside, Element* plain) {
  if constexpr (kOut)
    *plain = *inside;
  else
    *inside = *plain;
}

// Eight bf16 at once.
using Bf16 = std::uint16_t;
using Eight [[gnu::vector_size(16)]] = Bf16;
Eight load(const Bf16* p) {
  Eight x;
  std::memcpy(&x, p, sizeof x);
  return x;
}
void store(Bf16* p, Eight x) { std::memcpy(p, &x, sizeof x); }

// Sixteen in plain order ↔ in bf16_slot() order: of two vectors, element by element.
void interleave(Eight& a, Eight& b) {
  const Eight low = __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
  b = __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
  a = low;
}
void separate(Eight& a, Eight& b) {
  const Eight even = __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
  b = __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
  a = even;
}

// Three rounds of perfect shuffles of the rows are a transposition.
void transpose(Eight (&x)[8]) {
  for (int round = 0; round < 3; ++round) {
    Eight y[8];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      y[2 * i] = x[i];
      y[2 * i + 1] = x[i + 4];
      interleave(y[2 * i], y[2 * i + 1]);
    }
    std::copy(y, y + 8, x);
  }
}

template <bool kOut>
void exchange_sixteen(Bf16* inside, Bf16* plain) {
  Eight a = load(kOut ? inside : plain);
  Eight b = load((kOut ? inside : plain) + 8);
  kOut ? separate(a, b) : interleave(a, b);
  store(kOut ? plain : inside, a);
  store((kOut ? plain : inside) + 8, b);
}

// Sixteen keys' eight dimensions: inside[dimension · kPanel + slot], plain[slot · width +
// dimension].
template <bool kOut>
void exchange_square(Bf16* inside, Bf16* plain, int width) {
  Eight first[8];
  Eight second[8];
  const auto row = [&](int slot) { return plain + static_cast<std::ptrdiff_t>(slot) * width; };
  if constexpr (kOut) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      first[i] = load(inside + i * kPanel);
      second[i] = load(inside + i * kPanel + 8);
      separate(first[i], second[i]);
    }
  } else {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      first[i] = load(row(i));
      second[i] = load(row(i + 8));
    }
  }
  transpose(first);
  transpose(second);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    if constexpr (kOut) {
      store(row(i), first[i]);
      store(row(i + 8), second[i]);
    } else {
      interleave(first[i], second[i]);
      store(inside + i * kPanel, first[i]);
      store(inside + i * kPanel + 8, second[i]);
    }
  }
}

// A tile's keys lie dimension by dimension: its rows stay in the first cache while they are turned.
template <class Element, bool kOut>
void exchange_keys(Element* inside, int width, int first, int count, Element* plain) {
  constexpr bool kBf16 = sizeof(Element) == 2;
  for (int slot = first; slot < first + count;) {
    if constexpr (kBf16) {
      if (width % 8 == 0 && slot % 16 == 0 && slot + 16 <= first + count) {
        for (int i = 0; i < width; i += 8, plain += 8)
          exchange_square<kOut>(inside + key_index(width, slot, i, false), plain, width);
        plain += static_cast<std::ptrdiff_t>(15) * width;
        slot += 16;
        continue;
      }
    }
    Element* const column = inside + key_index(width, slot, 0, kBf16);
    for (int i = 0; i < width; ++i) exchange_one<Element, kOut>(column + i * kPanel, plain++);
    ++slot;
  }
}

template <class Element, bool kOut>
void exchange_values(Element* inside, int stride, int width, int first, int count, Element* plain) {
  for (int panel = 0; panel < width; panel += kPanel) {
    for (int slot = 0; slot < count; ++slot) {
      Element* const at = inside + value_index(stride, first + slot, panel, false);
      Element* const row = plain + static_cast<std::ptrdiff_t>(slot) * width + panel;
      if constexpr (sizeof(Element) == 2) {
        exchange_sixteen<kOut>(at, row);
        exchange_sixteen<kOut>(at + 16, row + 16);
      } else {
        for (int i = 0; i < kPanel; ++i) exchange_one<Element, kOut>(at + i, row + i);
      }
    }
  }
}

}  // namespace

template <class Element>
void put_position(const HeadMemory& to, int width, int slot, const float* key, const float* value) {
  constexpr bool kBf16 = sizeof(Element) == 2;
  auto* k = reinterpret_cast<Element*>(to.keys);
  auto* v = reinterpret_cast<Element*>(to.values);
  for (int i = 0; i < width; ++i) {
    k[key_index(width, slot, i, kBf16)] = narrowed<Element>(key[i]);
    v[value_index(to.stride, slot, i, kBf16)] = narrowed<Element>(value[i]);
  }
}

template <class Element, bool kOut>
void exchange(const HeadMemory& memory, int width, int first, int count, std::uint8_t* plain_keys,
              std::uint8_t* plain_values) {
  // Plain bytes come from allocations of their own: aligned for any number.
  exchange_keys<Element, kOut>(reinterpret_cast<Element*>(memory.keys), width, first, count,
                               reinterpret_cast<Element*>(plain_keys));
  exchange_values<Element, kOut>(reinterpret_cast<Element*>(memory.values), memory.stride, width,
                                 first, count, reinterpret_cast<Element*>(plain_values));
}

template <class Element>
void copy_slot(const HeadMemory& from, int from_slot, const HeadMemory& to, int to_slot,
               int width) {
  constexpr bool kBf16 = sizeof(Element) == 2;
  const Element* key =
      reinterpret_cast<const Element*>(from.keys) + key_index(width, from_slot, 0, kBf16);
  Element* to_key = reinterpret_cast<Element*>(to.keys) + key_index(width, to_slot, 0, kBf16);
  for (int i = 0; i < width; ++i) to_key[i * kPanel] = key[i * kPanel];
  for (int panel = 0; panel < width; panel += kPanel) {
    std::memcpy(
        reinterpret_cast<Element*>(to.values) + value_index(to.stride, to_slot, panel, false),
        reinterpret_cast<const Element*>(from.values) +
            value_index(from.stride, from_slot, panel, false),
        kPanel * sizeof(Element));
  }
}

#define KVFS_PAGE_ORDER(Element)                                                                \
  template void put_position<Element>(const HeadMemory&, int, int, const float*, const float*); \
  template void exchange<Element, false>(const HeadMemory&, int, int, int, std::uint8_t*,       \
                                         std::uint8_t*);                                        \
  template void exchange<Element, true>(const HeadMemory&, int, int, int, std::uint8_t*,        \
                                        std::uint8_t*);                                         \
  template void copy_slot<Element>(const HeadMemory&, int, const HeadMemory&, int, int);
KVFS_PAGE_ORDER(std::uint16_t)
KVFS_PAGE_ORDER(float)
#undef KVFS_PAGE_ORDER

}  // namespace kvfs::model::cpu

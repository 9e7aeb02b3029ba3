// Eight fp32 lanes in plain C++: what simd_avx2.h does, operation by operation, on any machine.
// It is the proof of the fast kernels, and slow.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "engine/model/cpu/panel.h"
#include "engine/model/dequantize.h"

namespace kvfs::model::cpu {

struct Portable {
  static constexpr int kTileRows = 4;
  using F = std::array<float, 8>;

  static F zero() { return {}; }
  static F all(float x) { return {x, x, x, x, x, x, x, x}; }
  static F load(const float* p) {
    return each([&](int i) { return p[i]; });
  }
  static void store(float* p, const F& x) {
    for (int i = 0; i < 8; ++i) p[i] = x[i];
  }
  static F add(const F& a, const F& b) {
    return each([&](int i) { return a[i] + b[i]; });
  }
  static F sub(const F& a, const F& b) {
    return each([&](int i) { return a[i] - b[i]; });
  }
  static F mul(const F& a, const F& b) {
    return each([&](int i) { return a[i] * b[i]; });
  }
  static F div(const F& a, const F& b) {
    return each([&](int i) { return a[i] / b[i]; });
  }
  static F fma(const F& a, const F& b, const F& c) {
    return each([&](int i) { return std::fma(a[i], b[i], c[i]); });
  }
  static F max(const F& a, const F& b) {
    return each([&](int i) { return a[i] > b[i] ? a[i] : b[i]; });
  }
  static F min(const F& a, const F& b) {
    return each([&](int i) { return a[i] < b[i] ? a[i] : b[i]; });
  }
  static F abs(const F& a) {
    return each([&](int i) { return std::fabs(a[i]); });
  }
  static F round(const F& a) {
    return each([&](int i) { return std::nearbyint(a[i]); });
  }
  static const float* reload(const float* p) { return p; }
  static F first(int n, const F& a, const F& b) {
    return each([&](int i) { return i < n ? a[i] : b[i]; });
  }
  static F scale2(const F& x, const F& n) {
    return each([&](int i) {
      const auto shift = static_cast<std::uint32_t>(to_int(n[i])) << 23;
      return std::bit_cast<float>(std::bit_cast<std::uint32_t>(x[i]) + shift);
    });
  }
  static float sum(const F& x) {
    return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
  }
  static float max_of(const F& x) {
    const auto larger = [](float a, float b) { return a > b ? a : b; };
    return larger(larger(larger(x[0], x[4]), larger(x[2], x[6])),
                  larger(larger(x[1], x[5]), larger(x[3], x[7])));
  }

  static F load_halves(const std::uint16_t* p) {
    return each([&](int i) { return fp16_to_float(p[i]); });
  }

  struct F32Panel : EightLanePanel<Portable> {
    using Element = float;
    static void load(const float* b, int part, F (&columns)[2]) {
      columns[0] = Portable::load(b + 16 * part);
      columns[1] = Portable::load(b + 16 * part + 8);
    }
  };
  struct Fp16Panel : EightLanePanel<Portable> {
    using Element = std::uint16_t;
    static void load(const std::uint16_t* b, int part, F (&columns)[2]) {
      columns[0] = load_halves(b + 16 * part);
      columns[1] = load_halves(b + 16 * part + 8);
    }
  };
  struct Bf16Panel : EightLanePanel<Portable> {  // in bf16_slot() order
    using Element = std::uint16_t;
    static void load(const std::uint16_t* b, int part, F (&columns)[2]) {
      b += 16 * part;
      columns[0] = each([&](int i) { return bf16_to_float(b[2 * i]); });
      columns[1] = each([&](int i) { return bf16_to_float(b[2 * i + 1]); });
    }
  };

  template <int Rows, int Groups>
  static void nibble_dots(const std::uint8_t* w, std::size_t group, const std::int8_t* a, int row,
                          F (&sums)[Rows][Groups]) {
    dots<Rows, Groups>(w, group, a, row, sums, nibble_column);
  }
  template <int Rows, int Groups>
  static void octet_dots(const std::uint8_t* w, std::size_t group, const std::int8_t* a, int row,
                         F (&sums)[Rows][Groups]) {
    dots<Rows, Groups>(w, group, a, row, sums, octet_column);
  }
  template <int Groups>
  static void unpack_nibbles(const std::uint8_t* w, std::uint8_t* to) {
    for (int i = 0; i < 128; ++i) {
      std::uint8_t* at = to + i / 32 * 32 * Groups + i % 32;
      at[0] = w[i] & 15;
      at[128 * Groups] = w[i] >> 4;
    }
  }
  template <int Rows, int Groups>
  static void unpacked_dots(const std::uint8_t* w, const std::int8_t* a, int row,
                            F (&sums)[Rows][Groups]) {
    for (int r = 0; r < Rows; ++r) {
      for (int g = 0; g < Groups; ++g) {
        sums[r][g] = each([&](int output) {
          int sum = 0;
          for (int k = 0; k < 32; ++k)
            sum += w[32 * (Groups * (k / 4) + g) + 4 * output + k % 4] * a[r * row + k];
          return static_cast<float>(sum);
        });
      }
    }
  }
  static F nibble_column(const std::uint8_t* p, int k) {
    return each([&](int row) {
      const int byte = p[32 * (k / 4 % 4) + 4 * row + k % 4];
      return static_cast<float>(k < 16 ? byte & 15 : byte >> 4);
    });
  }
  static F octet_column(const std::uint8_t* p, int k) {
    return each([&](int row) {
      return static_cast<float>(static_cast<std::int8_t>(p[32 * (k / 4) + 4 * row + k % 4]));
    });
  }
  static void two_largest(const float* x, float& largest, float& second) {
    largest = 0.0F;
    second = 0.0F;
    for (int i = 0; i < 32; ++i) {
      const float a = std::fabs(x[i]);
      second = std::max(second, std::min(largest, a));
      largest = std::max(largest, a);
    }
  }

  static int quantize32(const float* x, float factor, std::int8_t* out) {
    int total = 0;
    for (int i = 0; i < 32; ++i) {
      const int q = std::max(std::min(to_int(x[i] * factor), 127), -127);
      out[i] = static_cast<std::int8_t>(q);
      total += q;
    }
    return total;
  }

 private:
  // Integers below 2^24: fp32 sums them exactly.
  template <int Rows, int Groups>
  static void dots(const std::uint8_t* w, std::size_t group, const std::int8_t* a, int row,
                   F (&sums)[Rows][Groups], F (*column)(const std::uint8_t*, int)) {
    for (int r = 0; r < Rows; ++r) {
      for (int g = 0; g < Groups; ++g) sums[r][g] = zero();
    }
    for (int k = 0; k < 32; ++k) {
      for (int g = 0; g < Groups; ++g) {
        const F weights = column(w + static_cast<std::size_t>(g) * group, k);
        for (int r = 0; r < Rows; ++r) {
          sums[r][g] = add(sums[r][g], mul(weights, all(static_cast<float>(a[r * row + k]))));
        }
      }
    }
  }

  template <class Fn>
  static F each(Fn fn) {
    F out;
    for (int i = 0; i < 8; ++i) out[i] = fn(i);
    return out;
  }
  // Nearest, ties to even; what does not fit is the lowest int, as the instruction has it.
  static int to_int(float x) {
    if (!(std::fabs(x) < 2147483648.0F)) return std::numeric_limits<int>::min();
    return static_cast<int>(std::nearbyint(x));
  }
};

}  // namespace kvfs::model::cpu

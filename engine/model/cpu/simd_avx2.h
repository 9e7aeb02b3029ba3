// Eight fp32 lanes on AVX2, FMA and F16C: one of the two machines the kernels are written for.
//
// Included only by files compiled with -mavx2 -mfma -mf16c -ffp-contract=off, or more. The portable
// machine (simd_portable.h) does the same operations on the same lanes in the same order: equal
// bits. In an unnamed namespace: each of those files keeps the code made with its own flags.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "engine/model/cpu/panel.h"

namespace kvfs::model::cpu {
namespace {

struct Avx2 {
  using F = __m256;
  static constexpr int kTileRows = 4;  // of a quantized product: as many as 16 registers hold

  static F zero() { return _mm256_setzero_ps(); }
  static F all(float x) { return _mm256_set1_ps(x); }
  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, F x) { _mm256_storeu_ps(p, x); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F div(F a, F b) { return _mm256_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }  // a·b + c, rounded once
  static F max(F a, F b) { return _mm256_max_ps(a, b); }            // b when unordered
  static F min(F a, F b) { return _mm256_min_ps(a, b); }
  static F abs(F a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0F), a); }
  static F round(F a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

  // The same pointer, but the compiler forgets what it has loaded through it: twelve sums and what
  // feeds them fill the sixteen registers, one broadcast kept too long spills a sum.
  static const float* reload(const float* p) {
    asm volatile("" : "+r"(p));
    return p;
  }
  // Lanes below n from a, the others from b.
  static F first(int n, F a, F b) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane);
    return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(mask));
  }
  // x · 2^n for integral n with both within the normal range.
  static F scale2(F x, F n) {
    const __m256i bits = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), bits));
  }
  static float sum(F x) {  // ((0+4)+(2+6)) + ((1+5)+(3+7))
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
  }
  static float max_of(F x) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
  }

  static F load_halves(const std::uint16_t* p) {  // 8 fp16, in order
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }

  struct F32Panel : EightLanePanel<Avx2> {
    using Element = float;
    static void load(const float* b, int part, F (&columns)[2]) {
      columns[0] = Avx2::load(b + 16 * part);
      columns[1] = Avx2::load(b + 16 * part + 8);
    }
  };
  struct Fp16Panel : EightLanePanel<Avx2> {
    using Element = std::uint16_t;
    static void load(const std::uint16_t* b, int part, F (&columns)[2]) {
      columns[0] = load_halves(b + 16 * part);
      columns[1] = load_halves(b + 16 * part + 8);
    }
  };
  struct Bf16Panel : EightLanePanel<Avx2> {  // in bf16_slot() order
    using Element = std::uint16_t;
    static void load(const std::uint16_t* b, int part, F (&columns)[2]) {
      b += 16 * part;
      const __m256i pairs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b));
      columns[0] = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
      columns[1] = _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(-65536)));
    }
  };

  // Exact products of one block (32 inputs) of Rows rows of int8 and Groups groups of 8 outputs:
  // sums[r][g] = a's row r (at a + r · row) times group g's block (at w + g · group).
  template <int Rows, int Groups>
  static void nibble_dots(const std::uint8_t* w, std::size_t group, const std::int8_t* a, int row,
                          F (&sums)[Rows][Groups]) {
    const __m256i mask = _mm256_set1_epi8(15);
    __m256i sum[Rows][Groups];
#pragma GCC unroll 4
    for (int four = 0; four < 4; ++four) {
      __m256i low[Groups];
      __m256i high[Groups];
#pragma GCC unroll 2
      for (int g = 0; g < Groups; ++g) {
        const __m256i x = load_bytes(w + static_cast<std::size_t>(g) * group + 32 * four);
        low[g] = _mm256_and_si256(x, mask);
        high[g] = _mm256_and_si256(_mm256_srli_epi16(x, 4), mask);
      }
#pragma GCC unroll 4
      for (int r = 0; r < Rows; ++r) {
        const __m256i left = broadcast4(a + r * row + 4 * four);
        const __m256i right = broadcast4(a + r * row + 4 * four + 16);
#pragma GCC unroll 2
        for (int g = 0; g < Groups; ++g) {
          // 16 bits hold all: eight pairs of at most 2 · 15 · 127.
          const __m256i pairs = _mm256_maddubs_epi16(low[g], left);
          sum[r][g] = four == 0 ? pairs : _mm256_add_epi16(sum[r][g], pairs);
          sum[r][g] = _mm256_add_epi16(sum[r][g], _mm256_maddubs_epi16(high[g], right));
          keep_here(sum[r][g]);
        }
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 2
      for (int g = 0; g < Groups; ++g) {
        sums[r][g] = _mm256_cvtepi32_ps(_mm256_madd_epi16(sum[r][g], _mm256_set1_epi16(1)));
      }
    }
  }
  template <int Rows, int Groups>
  static void octet_dots(const std::uint8_t* w, std::size_t group, const std::int8_t* a, int row,
                         F (&sums)[Rows][Groups]) {
    __m256i sum[Rows][Groups];
#pragma GCC unroll 8
    for (int four = 0; four < 8; ++four) {
#pragma GCC unroll 2
      for (int g = 0; g < Groups; ++g) {
        const __m256i x = load_bytes(w + static_cast<std::size_t>(g) * group + 32 * four);
        const __m256i magnitude = _mm256_abs_epi8(x);
#pragma GCC unroll 4
        for (int r = 0; r < Rows; ++r) {
          // |w| · (±a): a pair is at most 2 · 128 · 127, within 16 bits.
          const __m256i pairs = _mm256_maddubs_epi16(
              magnitude, _mm256_sign_epi8(broadcast4(a + r * row + 4 * four), x));
          const __m256i words = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
          sum[r][g] = four == 0 ? words : _mm256_add_epi32(sum[r][g], words);
          keep_here(sum[r][g]);
        }
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 2
      for (int g = 0; g < Groups; ++g) sums[r][g] = _mm256_cvtepi32_ps(sum[r][g]);
    }
  }

  // A block's nibbles as bytes, one of Groups neighbours in each of eight steps of four inputs.
  template <int Groups>
  static void unpack_nibbles(const std::uint8_t* w, std::uint8_t* to) {
    const __m256i mask = _mm256_set1_epi8(15);
    for (int four = 0; four < 4; ++four) {
      const __m256i x = load_bytes(w + 32 * four);
      store_bytes(to + 32 * Groups * four, _mm256_and_si256(x, mask));
      store_bytes(to + 32 * Groups * (four + 4), _mm256_and_si256(_mm256_srli_epi16(x, 4), mask));
    }
  }
  // nibble_dots of what unpack_nibbles made.
  template <int Rows, int Groups>
  static void unpacked_dots(const std::uint8_t* w, const std::int8_t* a, int row,
                            F (&sums)[Rows][Groups]) {
    __m256i sum[Rows][Groups];
#pragma GCC unroll 8
    for (int four = 0; four < 8; ++four) {
      __m256i left[Rows];
#pragma GCC unroll 4
      for (int r = 0; r < Rows; ++r) left[r] = broadcast4(a + r * row + 4 * four);
#pragma GCC unroll 4
      for (int g = 0; g < Groups; ++g, w += 32) {
        __m256i x = load_bytes(w);
        keep_here(x);
#pragma GCC unroll 4
        for (int r = 0; r < Rows; ++r) {
          const __m256i pairs = _mm256_maddubs_epi16(x, left[r]);
          sum[r][g] = four == 0 ? pairs : _mm256_add_epi16(sum[r][g], pairs);
          keep_here(sum[r][g]);
        }
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < Rows * Groups; ++i) {
      sums[i / Groups][i % Groups] =
          _mm256_cvtepi32_ps(_mm256_madd_epi16(sum[i / Groups][i % Groups], _mm256_set1_epi16(1)));
    }
  }

  // Input k's weights of a block, one for each of the eight outputs.
  static F nibble_column(const std::uint8_t* p, int k) {
    const __m256i x = load_bytes(p + 32 * (k / 4 % 4));
    const __m128i shift = _mm_cvtsi32_si128(8 * (k % 4) + (k < 16 ? 0 : 4));
    return _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srl_epi32(x, shift), _mm256_set1_epi32(15)));
  }
  static F octet_column(const std::uint8_t* p, int k) {
    const __m256i x = load_bytes(p + 32 * (k / 4));
    const __m128i shift = _mm_cvtsi32_si128(24 - 8 * (k % 4));
    return _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_sll_epi32(x, shift), 24));
  }

  // The largest and second largest of 32 magnitudes.
  static void two_largest(const float* x, float& largest, float& second) {
    F a = abs(load(x));
    F b = abs(load(x + 8));
    F top = max(a, b);
    F next = min(a, b);
    for (int i = 16; i < 32; i += 8) {
      a = abs(load(x + i));
      next = max(next, min(top, a));
      top = max(top, a);
    }
    const auto join = [&](F other_top, F other_next) {
      next = max(max(next, other_next), min(top, other_top));
      top = max(top, other_top);
    };
    join(_mm256_permute2f128_ps(top, top, 1), _mm256_permute2f128_ps(next, next, 1));
    join(_mm256_permute_ps(top, 0x4E), _mm256_permute_ps(next, 0x4E));
    join(_mm256_permute_ps(top, 0xB1), _mm256_permute_ps(next, 0xB1));
    largest = _mm256_cvtss_f32(top);
    second = _mm256_cvtss_f32(next);
  }

  // 32 values, times factor, to the nearest integers (ties to even) within ±127; their sum.
  static int quantize32(const float* x, float factor, std::int8_t* out) {
    const F f = all(factor);
    __m256i q[4];
    __m256i total = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int i = 0; i < 4; ++i) {
      q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(load(x + 8 * i), f));
      q[i] =
          _mm256_max_epi32(_mm256_min_epi32(q[i], _mm256_set1_epi32(127)), _mm256_set1_epi32(-127));
      total = _mm256_add_epi32(total, q[i]);
    }
    __m256i bytes =
        _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), bytes);
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
    s = _mm_add_epi32(s, _mm_unpackhi_epi64(s, s));
    return _mm_cvtsi128_si32(s) + _mm_extract_epi32(s, 1);
  }

 protected:
  // A sum stays a running sum: left alone, g++ keeps all terms and adds them up in the end, and
  // spills every one.
  static void keep_here(__m256i& x) { asm volatile("" : "+x"(x)); }
  static __m256i load_bytes(const std::uint8_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static void store_bytes(std::uint8_t* p, __m256i x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x);
  }
  static __m256i broadcast4(const std::int8_t* p) {
    std::int32_t word;
    __builtin_memcpy(&word, p, 4);
    return _mm256_set1_epi32(word);
  }
};

}  // namespace
}  // namespace kvfs::model::cpu

// Avx2 with VNNI: four products of bytes and their sum in one instruction. Integer sums are exact,
// so the bits are those of the other machines.
//
// Included only by files compiled with -mavxvnni, or -mavx512vnni -mavx512vl, which have twice the
// registers, beside Avx2's flags.
#pragma once

#include "engine/model/cpu/simd_avx2.h"

namespace kvfs::model::cpu {
namespace {

template <int TileRows>
struct Vnni : Avx2 {
  static constexpr int kTileRows = TileRows;

  // As in Avx2.
  template <int Rows, int Groups>
  static void nibble_dots(const std::uint8_t* w, std::size_t group, const std::int8_t* a, int row,
                          F (&sums)[Rows][Groups]) {
    const __m256i mask = _mm256_set1_epi8(15);
    __m256i sum[Rows][Groups];
    clear<Rows, Groups>(sum);
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
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) {
        const __m256i left = broadcast4(a + r * row + 4 * four);
        const __m256i right = broadcast4(a + r * row + 4 * four + 16);
#pragma GCC unroll 2
        for (int g = 0; g < Groups; ++g) {
          sum[r][g] = _mm256_dpbusd_epi32(sum[r][g], low[g], left);
          sum[r][g] = _mm256_dpbusd_epi32(sum[r][g], high[g], right);
        }
      }
    }
    to_floats<Rows, Groups>(sum, sums);
  }

  // The weights become unsigned by adding 128; 128 times the sum of a is taken off again.
  template <int Rows, int Groups>
  static void octet_dots(const std::uint8_t* w, std::size_t group, const std::int8_t* a, int row,
                         F (&sums)[Rows][Groups]) {
    const __m256i bias = _mm256_set1_epi8(-128);
    __m256i sum[Rows][Groups];
    __m256i excess[Rows];
    clear<Rows, Groups>(sum);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) excess[r] = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int four = 0; four < 8; ++four) {
      __m256i x[Groups];
#pragma GCC unroll 2
      for (int g = 0; g < Groups; ++g) {
        x[g] =
            _mm256_xor_si256(load_bytes(w + static_cast<std::size_t>(g) * group + 32 * four), bias);
      }
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) {
        const __m256i left = broadcast4(a + r * row + 4 * four);
        excess[r] = _mm256_dpbusd_epi32(excess[r], bias, left);
#pragma GCC unroll 2
        for (int g = 0; g < Groups; ++g) sum[r][g] = _mm256_dpbusd_epi32(sum[r][g], x[g], left);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < Rows * Groups; ++i) {
      __m256i& all = sum[i / Groups][i % Groups];
      all = _mm256_sub_epi32(all, excess[i / Groups]);
    }
    to_floats<Rows, Groups>(sum, sums);
  }

  template <int Rows, int Groups>
  static void unpacked_dots(const std::uint8_t* w, const std::int8_t* a, int row,
                            F (&sums)[Rows][Groups]) {
    __m256i sum[Rows][Groups];
    clear<Rows, Groups>(sum);
#pragma GCC unroll 8
    for (int four = 0; four < 8; ++four) {
      __m256i left[Rows];
#pragma GCC unroll 4
      for (int r = 0; r < Rows; ++r) left[r] = broadcast4(a + r * row + 4 * four);
#pragma GCC unroll 4
      for (int g = 0; g < Groups; ++g, w += 32) {
        const __m256i x = load_bytes(w);
#pragma GCC unroll 4
        for (int r = 0; r < Rows; ++r) sum[r][g] = _mm256_dpbusd_epi32(sum[r][g], x, left[r]);
      }
    }
    to_floats<Rows, Groups>(sum, sums);
  }

 private:
  template <int Rows, int Groups>
  static void clear(__m256i (&sum)[Rows][Groups]) {
#pragma GCC unroll 16
    for (int i = 0; i < Rows * Groups; ++i) sum[i / Groups][i % Groups] = _mm256_setzero_si256();
  }
  template <int Rows, int Groups>
  static void to_floats(const __m256i (&sum)[Rows][Groups], F (&sums)[Rows][Groups]) {
#pragma GCC unroll 16
    for (int i = 0; i < Rows * Groups; ++i) {
      sums[i / Groups][i % Groups] = _mm256_cvtepi32_ps(sum[i / Groups][i % Groups]);
    }
  }
};

}  // namespace
}  // namespace kvfs::model::cpu

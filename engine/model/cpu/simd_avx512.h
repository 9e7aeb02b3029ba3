// VNNI with 512-bit registers, which hold sixteen columns of a panel: lanes never meet there, so
// the bits stay the same. What sums over lanes keeps to eight.
//
// Included only by files compiled with AVX2's flags and -mavx512{vnni,vl,bw,dq}.
#pragma once

#include "engine/model/cpu/simd_vnni.h"

namespace kvfs::model::cpu {
namespace {

struct Avx512 : Vnni<8> {
  struct WidePanel {
    using Vector = __m512;
    static constexpr int kVectors = 2;
    static constexpr int kParts = 1;
    static constexpr int kRows = 6;

    static Vector all(float x) { return _mm512_set1_ps(x); }
    static Vector fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
    static void clear(Vector (&sum)[2]) { sum[0] = sum[1] = _mm512_setzero_ps(); }
    static void load_sums(const float* c, Vector (&sum)[2]) {
      sum[0] = _mm512_loadu_ps(c);
      sum[1] = _mm512_loadu_ps(c + 16);
    }
    static void store_sums(float* c, const Vector (&sum)[2]) {
      _mm512_storeu_ps(c, sum[0]);
      _mm512_storeu_ps(c + 16, sum[1]);
    }
  };
  struct F32Panel : WidePanel {
    using Element = float;
    static void load(const float* b, int, Vector (&columns)[2]) { load_sums(b, columns); }
  };
  struct Fp16Panel : WidePanel {
    using Element = std::uint16_t;
    static void load(const std::uint16_t* b, int, Vector (&columns)[2]) {
      columns[0] = _mm512_cvtph_ps(half_panel(b));
      columns[1] = _mm512_cvtph_ps(half_panel(b + 16));
    }

   private:
    static __m256i half_panel(const std::uint16_t* b) {
      return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b));
    }
  };
  // Even and odd halves of words are columns 0 … 7 and 16 … 23, 8 … 15 and 24 … 31: bf16_slot().
  struct Bf16Panel : WidePanel {
    using Element = std::uint16_t;
    static void load(const std::uint16_t* b, int, Vector (&columns)[2]) {
      const __m512i pairs = _mm512_loadu_si512(b);
      columns[0] = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
      columns[1] = _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(-65536)));
    }
    static void load_sums(const float* c, Vector (&sum)[2]) {
      for (int i = 0; i < 2; ++i) {
        sum[i] = _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(c + 8 * i)),
                                    _mm256_loadu_ps(c + 8 * i + 16), 1);
      }
    }
    static void store_sums(float* c, const Vector (&sum)[2]) {
      for (int i = 0; i < 2; ++i) {
        _mm256_storeu_ps(c + 8 * i, _mm512_castps512_ps256(sum[i]));
        _mm256_storeu_ps(c + 8 * i + 16, _mm512_extractf32x8_ps(sum[i], 1));
      }
    }
  };
};

}  // namespace
}  // namespace kvfs::model::cpu

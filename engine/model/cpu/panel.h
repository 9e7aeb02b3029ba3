// A panel of 32 columns in four vectors of eight, for machines without wider ones. A panel of an
// element type adds Element and load(b, part, columns): 16 columns, in order.
#pragma once

namespace kvfs::model::cpu {

template <class V>
struct EightLanePanel {
  using Vector = typename V::F;
  static constexpr int kVectors = 4;
  static constexpr int kParts = 2;  // 16 columns: all of them and three rows' sums would not fit
  static constexpr int kRows = 3;

  static void clear(Vector (&sum)[kVectors]) {
#pragma GCC unroll 4
    for (Vector& v : sum) v = V::zero();
  }
  static void load_sums(const float* c, Vector (&sum)[kVectors]) {
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) sum[i] = V::load(c + 8 * i);
  }
  static void store_sums(float* c, const Vector (&sum)[kVectors]) {
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) V::store(c + 8 * i, sum[i]);
  }
  static Vector all(float x) { return V::all(x); }
  static Vector fma(Vector a, Vector b, Vector c) { return V::fma(a, b, c); }
};

}  // namespace kvfs::model::cpu

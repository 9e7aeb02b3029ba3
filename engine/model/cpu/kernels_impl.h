// The kernels, written once for a machine V of eight fp32 lanes (simd_avx2.h, simd_portable.h).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "engine/model/cpu/kernels.h"
#include "engine/model/cpu/quantized_products.h"

namespace kvfs::model::cpu {

template <class V>
struct KernelsOf {
  using F = typename V::F;

  // e^x for x ≤ 88, by x = n·ln 2 + r and a polynomial for e^r (Cephes' expf); about 1 ulp.
  static F exp(F x) {
    x = V::max(V::min(x, V::all(88.0F)), V::all(-87.0F));
    const F n = V::round(V::mul(x, V::all(1.44269504F)));
    F r = V::fma(n, V::all(-0.693359375F), x);
    r = V::fma(n, V::all(2.12194440e-4F), r);
    F p = V::fma(V::all(1.9875691500e-4F), r, V::all(1.3981999507e-3F));
    p = V::fma(p, r, V::all(8.3334519073e-3F));
    p = V::fma(p, r, V::all(4.1665795894e-2F));
    p = V::fma(p, r, V::all(1.6666665459e-1F));
    p = V::fma(p, r, V::all(5.0000001201e-1F));
    p = V::fma(p, V::mul(r, r), V::add(r, V::all(1.0F)));
    return V::scale2(p, n);
  }
  static float exp_one(float x) {
    float lanes[8];
    V::store(lanes, exp(V::all(x)));
    return lanes[0];
  }

  static void rms_norm(const float* x, const float* weight, float epsilon, int n, float* out) {
    F squares = V::zero();
    for (int i = 0; i < n; i += 8) {
      const F v = V::load(x + i);
      squares = V::fma(v, v, squares);
    }
    const float mean = V::sum(squares) / static_cast<float>(n);
    const F factor = V::all(1.0F / std::sqrt(mean + epsilon));
    for (int i = 0; i < n; i += 8) {
      V::store(out + i, V::mul(V::load(weight + i), V::mul(V::load(x + i), factor)));
    }
  }

  static void quantize(const float* x, int n, std::int8_t* values, float* scales, float* sums,
                       Outlier* outliers) {
    for (int block = 0; block < n / kBlock; ++block) {
      const float* in = x + block * kBlock;
      float peak;
      float second;
      V::two_largest(in, peak, second);
      outliers[block].column = -1;
      float rest[kBlock];
      if (peak > kOutlierRatio * second) {
        int at = 0;
        while (std::fabs(in[at]) != peak) ++at;
        outliers[block].column = block * kBlock + at;
        outliers[block].value = in[at];
        std::copy(in, in + kBlock, rest);
        rest[at] = 0.0F;
        in = rest;
        peak = second;
      }
      // Below this 127 / peak would overflow; such a block counts as zero.
      const bool zero = !(peak > 1e-30F);
      const float scale = zero ? 0.0F : peak / 127.0F;
      const int sum = V::quantize32(in, zero ? 0.0F : 127.0F / peak, values + block * kBlock);
      scales[block] = scale;
      sums[block] = scale * static_cast<float>(sum);
    }
  }

  static void layer_norm(const float* x, const float* weight, const float* bias, float epsilon,
                         int n, float* out) {
    F total = V::zero();
    for (int i = 0; i < n; i += 8) total = V::add(total, V::load(x + i));
    const F mean = V::all(V::sum(total) / static_cast<float>(n));
    F squares = V::zero();
    for (int i = 0; i < n; i += 8) {
      const F v = V::sub(V::load(x + i), mean);
      squares = V::fma(v, v, squares);
    }
    const float variance = V::sum(squares) / static_cast<float>(n);
    const F factor = V::all(1.0F / std::sqrt(variance + epsilon));
    for (int i = 0; i < n; i += 8) {
      const F v = V::mul(V::sub(V::load(x + i), mean), factor);
      const F scaled = V::mul(v, V::load(weight + i));
      V::store(out + i, bias != nullptr ? V::add(scaled, V::load(bias + i)) : scaled);
    }
  }

  // x / (1 + e^−y)
  static F times_sigmoid(F x, F y) {
    return V::div(x, V::add(V::all(1.0F), exp(V::sub(V::zero(), y))));
  }
  static F tanh(F x) {
    return V::sub(V::all(1.0F), V::div(V::all(2.0F), V::add(V::all(1.0F), exp(V::add(x, x)))));
  }
  template <class Function>
  static void each(const float* x, const float* factor, int n, float* out, Function function) {
    for (int i = 0; i < n; i += 8) {
      const F y = function(V::load(x + i));
      V::store(out + i, factor != nullptr ? V::mul(y, V::load(factor + i)) : y);
    }
  }

  static void activate(Activation activation, const float* x, const float* factor, int n,
                       float* out) {
    switch (activation) {
      case Activation::kSilu:
        return each(x, factor, n, out, [](F v) { return times_sigmoid(v, v); });
      case Activation::kGeluTanh:  // 1 + tanh(u) = 2 / (1 + e^−2u)
        return each(x, factor, n, out, [](F v) {
          const F cube = V::mul(V::mul(v, v), v);
          const F u = V::fma(V::all(0.044715F), cube, v);
          return times_sigmoid(v, V::mul(V::all(1.5957691216F), u));
        });
      case Activation::kGelu:
        return each(x, factor, n, out, [](F v) {
          float lanes[8];
          V::store(lanes, v);
          for (float& lane : lanes) lane = 0.5F * lane * (1.0F + std::erf(lane * 0.70710678F));
          return V::load(lanes);
        });
    }
  }

  static void add_scaled(float* y, const float* x, float factor, int n) {
    for (int i = 0; i < n; i += 8)
      V::store(y + i, V::fma(V::load(x + i), V::all(factor), V::load(y + i)));
  }

  static void soft_cap(float* x, float cap, int n) {
    for (int i = 0; i < n; i += 8)
      V::store(x + i, V::mul(V::all(cap), tanh(V::div(V::load(x + i), V::all(cap)))));
  }

  static void rotate(float* head, const float* cosines, const float* sines, int half) {
    int i = 0;
    for (; i + 8 <= half; i += 8) {
      const F a = V::load(head + i);
      const F b = V::load(head + half + i);
      const F c = V::load(cosines + i);
      const F s = V::load(sines + i);
      V::store(head + i, V::sub(V::mul(a, c), V::mul(b, s)));
      V::store(head + half + i, V::add(V::mul(b, c), V::mul(a, s)));
    }
    for (; i < half; ++i) {  // some families turn a part of a head only
      const float a = head[i];
      const float b = head[half + i];
      head[i] = a * cosines[i] - b * sines[i];
      head[half + i] = b * cosines[i] + a * sines[i];
    }
  }

  // ---- 32 columns of anything plain: weights, keys, values
  // V::Panel<Element> is a machine's own way to hold them: kVectors registers, in the order in
  // which the panel's elements lie; sums() and store() speak the plain order.

  // c[Rows, 32] (+)= a[Rows, count] · b[count, 32], k upwards in one accumulator. Not inlined: it
  // has no register to spare for what its callers would keep across it.
  template <class Panel, int Rows>
  [[gnu::noinline]] static void panel_tile(const float* a, std::size_t a_stride,
                                           const typename Panel::Element* b, int count, float* c,
                                           std::size_t c_stride, bool go_on) {
    constexpr int kVectors = Panel::kVectors;
    typename Panel::Vector sum[Rows][kVectors];
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      if (go_on)
        Panel::load_sums(c + static_cast<std::size_t>(r) * c_stride, sum[r]);
      else
        Panel::clear(sum[r]);
    }
    for (int k = 0; k < count; ++k, b += kPanel) {
#pragma GCC unroll 2
      for (int part = 0; part < Panel::kParts; ++part) {
        constexpr int kHere = kVectors / Panel::kParts;
        const float* factors = V::reload(a + k);
        typename Panel::Vector columns[kHere];
        Panel::load(b, part, columns);
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r) {
          const auto factor = Panel::all(factors[static_cast<std::size_t>(r) * a_stride]);
#pragma GCC unroll 2
          for (int i = 0; i < kHere; ++i) {
            auto& to = sum[r][kHere * part + i];
            to = Panel::fma(factor, columns[i], to);
          }
        }
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r)
      Panel::store_sums(c + static_cast<std::size_t>(r) * c_stride, sum[r]);
  }

  // The same for any number of rows.
  template <class Panel>
  static void panel_rows(int rows, const float* a, std::size_t a_stride,
                         const typename Panel::Element* b, int count, float* c,
                         std::size_t c_stride, bool go_on) {
    int r = 0;
    const auto tile = [&]<int Rows>() {
      panel_tile<Panel, Rows>(a + r * a_stride, a_stride, b, count, c + r * c_stride, c_stride,
                              go_on);
      r += Rows;
    };
    if constexpr (Panel::kRows >= 6) {
      while (r + 6 <= rows) tile.template operator()<6>();
    }
    while (r + 3 <= rows) tile.template operator()<3>();
    if (rows - r == 2) tile.template operator()<2>();
    if (rows - r == 1) tile.template operator()<1>();
  }

  template <class Panel>
  static void multiply_plain_as(const float* x, int rows, const MatrixView& w, int begin, int end,
                                Output out) {
    constexpr int kRows = 48;
    constexpr int kDepth =
        128;  // of a panel that stays in the first cache; sums go on, bits do not change
    alignas(64) float tile[kRows * kPanel];
    const auto* data = reinterpret_cast<const typename Panel::Element*>(w.data);
    const auto inputs = static_cast<std::size_t>(w.inputs);
    for (int panel = begin; panel < end; ++panel) {
      const auto* b = data + static_cast<std::size_t>(panel) * inputs * kPanel;
      const int width = std::min(kPanel, w.outputs - panel * kPanel);
      for (int first = 0; first < rows; first += kRows) {
        const int count = std::min(kRows, rows - first);
        for (int k = 0; k < w.inputs; k += kDepth) {
          panel_rows<Panel>(count, x + static_cast<std::size_t>(first) * inputs + k, inputs,
                            b + static_cast<std::size_t>(k) * kPanel,
                            std::min(kDepth, w.inputs - k), tile, kPanel, k > 0);
        }
        for (int r = 0; r < count; ++r) {
          float* y = out.y + static_cast<std::size_t>(first + r) * out.stride +
                     static_cast<std::size_t>(panel) * kPanel;
          const float* from = tile + r * kPanel;
          for (int i = 0; i < width; ++i) y[i] = out.accumulate ? y[i] + from[i] : from[i];
        }
      }
    }
  }

  static void multiply_plain(const float* x, int rows, const MatrixView& w, int begin, int end,
                             Output out) {
    switch (w.packing) {
      case Packing::kF32:
        return multiply_plain_as<typename V::F32Panel>(x, rows, w, begin, end, out);
      case Packing::kF16:
        return multiply_plain_as<typename V::Fp16Panel>(x, rows, w, begin, end, out);
      case Packing::kBF16:
        return multiply_plain_as<typename V::Bf16Panel>(x, rows, w, begin, end, out);
      default:
        return;
    }
  }

  // ---- attention

  // scores → e^(score − maximum) over the keys begin … end; what lies outside is not looked at.
  // Eight sums run over every eighth key from `origin` on.
  static void softmax(float* scores, int origin, int begin, int end, float soft_cap, float& maximum,
                      float& sum) {
    if (begin >= end) {
      maximum = kNothingSeen;
      sum = 0.0F;
      return;
    }
    const F none = V::all(-std::numeric_limits<float>::infinity());
    const int first = origin + (begin - origin) / 8 * 8;
    if (soft_cap != 0.0F) KernelsOf::soft_cap(scores + first, soft_cap, end - first);
    const auto seen = [&](int i, F x, F otherwise) {
      if (i >= begin && i + 8 <= end) return x;
      return V::first(begin - i, otherwise, V::first(end - i, x, otherwise));
    };
    F largest = none;
    for (int i = first; i < end; i += 8) {
      largest = V::max(largest, seen(i, V::load(scores + i), none));
    }
    maximum = V::max_of(largest);
    const F top = V::all(maximum);
    F total = V::zero();
    for (int i = first; i < end; i += 8) {
      const F p = seen(i, exp(V::sub(V::load(scores + i), top)), V::zero());
      V::store(scores + i, p);
      total = V::add(total, p);
    }
    sum = V::sum(total);
  }

  // Asks memory for part `at` of `parts` of what comes next.
  static void ask_for(const void* next, std::size_t bytes, int at, int parts) {
    const std::size_t lines = bytes / 64;
    const auto until = [&](int part) {
      return lines * static_cast<std::size_t>(part) / static_cast<std::size_t>(parts);
    };
    for (std::size_t line = until(at); line < until(at + 1); ++line)
      __builtin_prefetch(static_cast<const char*>(next) + 64 * line);
  }

  template <class Panel>
  static void attend(const AttendPage& t) {
    using Element = typename Panel::Element;
    const auto* keys = static_cast<const Element*>(t.keys);
    const auto* values = static_cast<const Element*>(t.values);
    const auto heads = static_cast<std::size_t>(t.heads);
    const auto width = static_cast<std::size_t>(t.width);
    const auto stride = static_cast<std::size_t>(t.value_stride);
    const auto begin = [&](int p) { return std::clamp(t.first_seen + p, t.first_slot, t.slots); };
    const auto end = [&](int p) { return std::min(t.slots, t.first_valid + p); };

    const int tiles = (t.slots + kPanel - 1) / kPanel;
    const std::size_t tile_keys = width * kPanel;
    for (int tile = 0; tile < tiles; ++tile) {
      for (int p = 0; p < t.positions; ++p) {
        // One row alone takes all that memory gives. Rows that share a tile wait for it once and
        // would leave memory idle while they compute.
        if (t.positions > 1) {
          if (tile + 1 < tiles)
            ask_for(keys + static_cast<std::size_t>(tile + 1) * tile_keys,
                    tile_keys * sizeof(Element), p, t.positions);
          const std::size_t bytes = static_cast<std::size_t>(t.slots) * kPanel * sizeof(Element);
          for (std::size_t column = 0; column < width; column += kPanel) {
            ask_for(values + column * stride, bytes, tile * t.positions + p, tiles * t.positions);
          }
        }
        if (end(p) <= tile * kPanel || begin(p) >= (tile + 1) * kPanel) continue;
        panel_rows<Panel>(
            t.heads, t.queries + static_cast<std::size_t>(p) * t.query_stride, width,
            keys + static_cast<std::size_t>(tile) * tile_keys, t.width,
            t.scores + static_cast<std::size_t>(p) * heads * kAttendScores + tile * kPanel,
            kAttendScores, false);
      }
    }
    for (int p = 0; p < t.positions; ++p) {
      for (std::size_t g = 0; g < heads; ++g) {
        const std::size_t row = static_cast<std::size_t>(p) * heads + g;
        softmax(t.scores + row * kAttendScores, t.first_slot, begin(p), end(p), t.soft_cap,
                t.maxima[row], t.sums[row]);
      }
    }
    for (std::size_t column = 0; column < width; column += kPanel) {
      for (int p = 0; p < t.positions; ++p) {
        const std::size_t row = static_cast<std::size_t>(p) * heads;
        const int from = begin(p);
        panel_rows<Panel>(t.heads, t.scores + row * kAttendScores + from, kAttendScores,
                          values + column * stride + static_cast<std::size_t>(from) * kPanel,
                          std::max(0, end(p) - from), t.outputs + row * width + column, width,
                          false);
      }
    }
  }

  static void attend_bf16(const AttendPage& task) { attend<typename V::Bf16Panel>(task); }
  static void attend_f32(const AttendPage& task) { attend<typename V::F32Panel>(task); }

  static void merge(float& maximum, float& sum, float* output, float page_maximum, float page_sum,
                    const float* page_output, int width) {
    const float top = maximum > page_maximum ? maximum : page_maximum;
    const F before = V::all(exp_one(maximum - top));
    const F page = V::all(exp_one(page_maximum - top));
    float lanes[8];
    V::store(lanes, V::fma(V::all(page_sum), page, V::mul(V::all(sum), before)));
    sum = lanes[0];
    maximum = top;
    for (int i = 0; i < width; i += 8) {
      V::store(output + i,
               V::fma(V::load(page_output + i), page, V::mul(V::load(output + i), before)));
    }
  }

  static void scale(float* x, float factor, int n) {
    for (int i = 0; i < n; i += 8) V::store(x + i, V::mul(V::load(x + i), V::all(factor)));
  }
  static void divide(const float* x, float divisor, int n, float* out) {
    for (int i = 0; i < n; i += 8) V::store(out + i, V::div(V::load(x + i), V::all(divisor)));
  }

  static constexpr Kernels table(const char* name) {
    return {.name = name,
            .rms_norm = rms_norm,
            .quantize = quantize,
            .layer_norm = layer_norm,
            .activate = activate,
            .add_scaled = add_scaled,
            .soft_cap = soft_cap,
            .rotate = rotate,
            .multiply_quantized = QuantizedProducts<V>::multiply,
            .multiply_plain = multiply_plain,
            .attend_bf16 = attend_bf16,
            .attend_f32 = attend_f32,
            .merge = merge,
            .scale = scale,
            .divide = divide};
  }
};

}  // namespace kvfs::model::cpu

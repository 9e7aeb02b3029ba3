// Products of quantized matrices with rows of int8, for a machine V (see kernels_impl.h).
//
// An output is the sum over blocks of 32 inputs, upwards, of d · scale · (an exact integer sum)
// and, where the packing has a minimum, m · (the scaled sum of the block's int8): the same
// operations in the same order in every tile. Few rows take the weights as they lie; many rows take
// four groups of outputs unpacked, a few blocks at a time, since unpacking is then done once for
// all of them.
#pragma once

#include <algorithm>
#include <cstdint>

#include "engine/model/cpu/kernels.h"

namespace kvfs::model::cpu {

template <class V>
struct QuantizedProducts {
  using F = typename V::F;

  static void multiply(const QuantizedRows& x, const MatrixView& w, int begin, int end,
                       Output out) {
    switch (w.packing) {
      case Packing::kQ4_1:
        return multiply_as<Packing::kQ4_1>(x, w, begin, end, out);
      case Packing::kQ4_0:
        return multiply_as<Packing::kQ4_0>(x, w, begin, end, out);
      case Packing::kQ8_0:
        return multiply_as<Packing::kQ8_0>(x, w, begin, end, out);
      default:
        return;  // plain packings have their own function
    }
  }

 private:
  static constexpr int kGroups = 4;  // of outputs in a tile, at most
  static constexpr int kTileWidth = kGroups * kGroup;
  static constexpr int kManyRows = 16;
  template <Packing P>
  static constexpr std::size_t kBlockBytes = P == Packing::kQ4_1   ? 160
                                             : P == Packing::kQ4_0 ? 144
                                                                   : 272;

  // The rows of one row block, and where their outputs gather: rows of y may lie a power of two
  // apart, here they do not.
  struct Tile {
    const QuantizedRows& x;
    int first;
    int last;
    alignas(32) float sums[kRowBlock * kTileWidth];

    Tile(const QuantizedRows& rows, int begin)
        : x(rows), first(begin), last(std::min(rows.rows, begin + kRowBlock)) {}
    float* of(int row) { return sums + (row - first) * kTileWidth; }
    const std::int8_t* values(int row, int block) const {
      return x.values + static_cast<std::size_t>(row) * static_cast<std::size_t>(x.columns) +
             block * kBlock;
    }
    std::size_t factors(int row, int block) const {  // index of scales and sums
      return static_cast<std::size_t>(row) * static_cast<std::size_t>(x.columns / kBlock) +
             static_cast<std::size_t>(block);
    }
  };

  // Scale and minimum of a block's eight outputs: w = d · q + m.
  template <Packing P>
  static F block_d(const std::uint8_t* w) {
    return V::load_halves(
        reinterpret_cast<const std::uint16_t*>(w + (P == Packing::kQ8_0 ? 256 : 128)));
  }
  template <Packing P>
  static F block_m(const std::uint8_t* w, F d) {
    if constexpr (P == Packing::kQ4_1)
      return V::load_halves(reinterpret_cast<const std::uint16_t*>(w + 144));
    return V::mul(d, V::all(P == Packing::kQ4_0 ? -8.0F : 0.0F));
  }

  // total += a block's part of Rows × Groups outputs.
  template <Packing P, int Rows, int Groups>
  static void add_block(const F (&dot)[Rows][Groups], const float* scales, const float* sums,
                        std::size_t stride, int group, F d, F m, F (&total)[Rows][Groups]) {
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      F& sum = total[r][group];
      const std::size_t at = static_cast<std::size_t>(r) * stride;
      sum = V::fma(dot[r][group], V::mul(d, V::all(scales[at])), sum);
      if constexpr (P != Packing::kQ8_0) sum = V::fma(m, V::all(sums[at]), sum);
    }
  }

  // Few rows come as fast as memory gives the weights: asks for a block of each group ahead of
  // time.
  template <Packing P, int Groups>
  static void fetch(const std::uint8_t* w, std::size_t group) {
#pragma GCC unroll 4
    for (int g = 0; g < Groups; ++g, w += group) {
#pragma GCC unroll 5
      for (std::size_t line = 0; line < kBlockBytes<P>; line += 64) __builtin_prefetch(w + line);
    }
  }

  // ---- few rows: the weights as they lie

  template <Packing P, int Rows, int Groups>
  static void packed_tile(Tile& tile, int row, const std::uint8_t* w, std::size_t group) {
    const int blocks = tile.x.columns / kBlock;
    F total[Rows][Groups];
#pragma GCC unroll 16
    for (int i = 0; i < Rows * Groups; ++i) total[i / Groups][i % Groups] = V::zero();
    const float* scales = tile.x.scales + tile.factors(row, 0);
    const float* sums = tile.x.sums + tile.factors(row, 0);
    const std::int8_t* values = tile.values(row, 0);
    const bool first = row == tile.first;
    for (int b = 0; b < blocks; ++b, w += kBlockBytes<P>, values += kBlock) {
      if (first) fetch<P, Groups>(w + Groups * group, group);
      F dot[Rows][Groups];
      if constexpr (P == Packing::kQ8_0)
        V::template octet_dots<Rows, Groups>(w, group, values, tile.x.columns, dot);
      else
        V::template nibble_dots<Rows, Groups>(w, group, values, tile.x.columns, dot);
#pragma GCC unroll 2
      for (int g = 0; g < Groups; ++g) {
        const F d = block_d<P>(w + static_cast<std::size_t>(g) * group);
        const F m = block_m<P>(w + static_cast<std::size_t>(g) * group, d);
        add_block<P, Rows, Groups>(dot, scales + b, sums + b, static_cast<std::size_t>(blocks), g,
                                   d, m, total);
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < Rows * Groups; ++i) {
      V::store(tile.of(row + i / Groups) + i % Groups * kGroup, total[i / Groups][i % Groups]);
    }
  }

  template <Packing P, int Groups>
  static void packed_rows(Tile& tile, const std::uint8_t* w, std::size_t group) {
    int row = tile.first;
    if constexpr (V::kTileRows >= 8) {
      for (; row + 8 <= tile.last; row += 8) packed_tile<P, 8, Groups>(tile, row, w, group);
    }
    for (; row + 4 <= tile.last; row += 4) packed_tile<P, 4, Groups>(tile, row, w, group);
    for (; row + 2 <= tile.last; row += 2) packed_tile<P, 2, Groups>(tile, row, w, group);
    for (; row < tile.last; ++row) packed_tile<P, 1, Groups>(tile, row, w, group);
  }

  // ---- many rows: four groups of 4-bit weights unpacked

  static constexpr int kAtOnce = 16;  // blocks; what is unpacked stays in the first cache
  struct Unpacked {
    alignas(32) std::uint8_t weights[kAtOnce][kGroups * 256];
    alignas(32) float d[kAtOnce][kGroups][kGroup];
    alignas(32) float m[kAtOnce][kGroups][kGroup];
  };

  template <Packing P>
  static void unpack(const std::uint8_t* w, std::size_t group, int blocks, Unpacked& to) {
    for (int g = 0; g < kGroups; ++g) {
      const std::uint8_t* from = w + static_cast<std::size_t>(g) * group;
      for (int b = 0; b < blocks; ++b, from += kBlockBytes<P>) {
        fetch<P, 1>(from + kGroups * group, group);
        V::template unpack_nibbles<kGroups>(from, to.weights[b] + 32 * g);
        const F d = block_d<P>(from);
        V::store(to.d[b][g], d);
        V::store(to.m[b][g], block_m<P>(from, d));
      }
    }
  }

  // Goes on with the sums that the blocks before have left in the tile.
  template <Packing P, int Rows>
  static void unpacked_tile(Tile& tile, int row, const Unpacked& w, int begin, int blocks) {
    F total[Rows][kGroups];
#pragma GCC unroll 16
    for (int i = 0; i < Rows * kGroups; ++i) {
      total[i / kGroups][i % kGroups] =
          begin == 0 ? V::zero() : V::load(tile.of(row + i / kGroups) + i % kGroups * kGroup);
    }
    const float* scales = tile.x.scales + tile.factors(row, begin);
    const float* sums = tile.x.sums + tile.factors(row, begin);
    const std::int8_t* values = tile.values(row, begin);
    for (int b = 0; b < blocks; ++b, values += kBlock) {
      F dot[Rows][kGroups];
      V::template unpacked_dots<Rows, kGroups>(w.weights[b], values, tile.x.columns, dot);
#pragma GCC unroll 4
      for (int g = 0; g < kGroups; ++g) {
        add_block<P, Rows, kGroups>(dot, scales + b, sums + b,
                                    static_cast<std::size_t>(tile.x.columns / kBlock), g,
                                    V::load(w.d[b][g]), V::load(w.m[b][g]), total);
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < Rows * kGroups; ++i) {
      V::store(tile.of(row + i / kGroups) + i % kGroups * kGroup, total[i / kGroups][i % kGroups]);
    }
  }

  template <Packing P>
  static void unpacked_rows(Tile& tile, const std::uint8_t* w, std::size_t group) {
    Unpacked unpacked;
    const int blocks = tile.x.columns / kBlock;
    for (int begin = 0; begin < blocks; begin += kAtOnce) {
      const int count = std::min(kAtOnce, blocks - begin);
      unpack<P>(w + kBlockBytes<P> * static_cast<std::size_t>(begin), group, count, unpacked);
      int row = tile.first;
      if constexpr (V::kTileRows >= 8) {
        for (; row + 4 <= tile.last; row += 4)
          unpacked_tile<P, 4>(tile, row, unpacked, begin, count);
      }
      for (; row + 2 <= tile.last; row += 2) unpacked_tile<P, 2>(tile, row, unpacked, begin, count);
      for (; row < tile.last; ++row) unpacked_tile<P, 1>(tile, row, unpacked, begin, count);
    }
  }

  // ---- both

  // What the int8 leave out, in the order of columns for each row. Rows often share a column.
  template <Packing P, int Groups>
  static void add_outliers(Tile& tile, const std::uint8_t* w, std::size_t group) {
    const std::int32_t* list = tile.x.outlier_starts + tile.first / kRowBlock;
    F weights[Groups] = {};
    int column = -1;
    for (const Outlier* o = tile.x.outliers + list[0]; o != tile.x.outliers + list[1]; ++o) {
      if (o->column != column) {
        column = o->column;
        const std::uint8_t* block = w + kBlockBytes<P> * static_cast<std::size_t>(column / kBlock);
#pragma GCC unroll 4
        for (int g = 0; g < Groups; ++g, block += group) {
          const F d = block_d<P>(block);
          if constexpr (P == Packing::kQ8_0)
            weights[g] = V::mul(V::octet_column(block, column % kBlock), d);
          else
            weights[g] = V::fma(V::nibble_column(block, column % kBlock), d, block_m<P>(block, d));
        }
      }
      const F value = V::all(o->value);
      float* to = tile.of(o->row);
#pragma GCC unroll 4
      for (int g = 0; g < Groups; ++g, to += kGroup) {
        V::store(to, V::fma(weights[g], value, V::load(to)));
      }
    }
  }

  template <Packing P, int Groups>
  static void finish(Tile& tile, const std::uint8_t* w, std::size_t group, float* y,
                     const Output& out) {
    add_outliers<P, Groups>(tile, w, group);
    for (int row = tile.first; row < tile.last; ++row) {
      float* at = y + static_cast<std::size_t>(row) * out.stride;
      for (int g = 0; g < Groups; ++g, at += kGroup) {
        const F sum = V::load(tile.of(row) + g * kGroup);
        V::store(at, out.accumulate ? V::add(V::load(at), sum) : sum);
      }
    }
  }

  template <Packing P>
  static void multiply_as(const QuantizedRows& x, const MatrixView& w, int begin, int end,
                          Output out) {
    const std::size_t group = kBlockBytes<P> * static_cast<std::size_t>(w.inputs / kBlock);
    for (int first = 0; first < x.rows; first += kRowBlock) {
      Tile tile(x, first);
      int g = begin;
      const auto at = [&] { return w.data + group * static_cast<std::size_t>(g); };
      if constexpr (P != Packing::kQ8_0) {
        if (tile.last - tile.first >= kManyRows) {
          for (; g + kGroups <= end; g += kGroups) {
            unpacked_rows<P>(tile, at(), group);
            finish<P, kGroups>(tile, at(), group, out.y + g * kGroup, out);
          }
        }
      }
      for (; g + 2 <= end; g += 2) {
        packed_rows<P, 2>(tile, at(), group);
        finish<P, 2>(tile, at(), group, out.y + g * kGroup, out);
      }
      if (g < end) {
        packed_rows<P, 1>(tile, at(), group);
        finish<P, 1>(tile, at(), group, out.y + g * kGroup, out);
      }
    }
  }
};

}  // namespace kvfs::model::cpu

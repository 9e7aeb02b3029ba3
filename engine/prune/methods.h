// The ways to prune, as data: each struct is a method and its parameters, with the defaults of the
// one word; what each keeps stands in the file of its name.
//
// Budgets and windows count entries (cached positions) of one KV head.
#pragma once

#include <cstdint>
#include <variant>

#include "codec/base/ids.h"

namespace kvfs::prune {

enum class Pooling { kAverage, kLargest };

// How many of a head's entries stay: a share of them, or a count.
struct Amount {
  double value = 0.5;
  bool is_share = true;

  std::int64_t of(std::int64_t entries) const;  // at least 1, at most all
  bool operator==(const Amount&) const = default;
};

// The last n, and the first `sinks`. StreamingLLM, arXiv 2309.17453, section 3.2.
struct KeepLast {
  int n = 512;
  int sinks = 0;
};

// A budget that falls from the bottom layer to the top one, filled by the newest token's attention.
// The notebook rule; after PyramidKV, arXiv 2406.02069.
struct Pyramid {
  enum class Select { kHeads /* the union of what each query head likes best */, kMean };
  int window = 128;
  int bottom = 512;
  int top = 128;
  int refresh = 16;  // while generating: tokens between two prunings
  int start = 256;   // … and entries of layer 0 before the first
  Select select = Select::kHeads;
};

// What the queries of the last `window` tokens looked at, pooled over neighbours.
struct ByWindow {
  int capacity = 320;  // the window included
  int window = 64;
  int kernel = 5;
  Pooling pooling = Pooling::kAverage;
};
// arXiv 2404.14469; kvpress, snapkv_press.py.
struct SnapKv : ByWindow {};
// arXiv 2406.02069; KVCache-Factory, pyramidkv_utils.py (PyramidKVCluster.update_kv).
struct PyramidKv : ByWindow {
  int beta = 20;  // the top layer's share of the capacity is 1 / beta
};
// arXiv 2407.11550, algorithm 1; kvpress, adakv_press.py.
struct AdaKv : ByWindow {
  double safeguard = 0.2;  // of its even share that every head keeps
};

struct ByAmount {
  Amount keep;
};
// arXiv 2306.14048; kvpress, observed_attention_press.py (its division by how many queries saw it).
struct H2o : ByAmount {};
// arXiv 2401.06104; kvpress, tova_press.py.
struct Tova : ByAmount {};
// arXiv 2406.11430; kvpress, knorm_press.py.
struct Knorm : ByAmount {};
// arXiv 2510.00636; kvpress, expected_attention_press.py.
struct Expected : ByAmount {};
// arXiv 2505.23416; kvpress, kvzip_press.py.
struct KvZip : ByAmount {};
// The control.
struct Random : ByAmount {
  std::uint64_t seed = 0;
};

// Not a choice by merit: takes positions from … to (without it) out of every layer.
struct Drop {
  Position from = 0;
  Position to = 0;
};

using Method = std::variant<KeepLast, Pyramid, PyramidKv, SnapKv, AdaKv, H2o, Tova, Knorm, Expected,
                            KvZip, Random, Drop>;

inline constexpr int kSinks = 4;  // first entries that expected and kvzip never drop

}  // namespace kvfs::prune

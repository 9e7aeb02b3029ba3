// The arithmetic of the forward pass, one function for each piece, in several builds with equal
// bits: AVX-512 VNNI, AVX VNNI, AVX2+FMA+F16C, and portable C++.
//
// "Same history, same bits" rests here: an output element is always computed by the same operations
// in the same order, whatever the number of rows, the tile it falls in, or the thread. Integer sums
// are exact; fp32 sums run over the inputs (blocks of 32, or one by one) upwards in one
// accumulator, attention over keys upwards within a page and over pages upwards.
//
// Plain functions on plain memory, no allocation, any thread. Sizes are checked when a model is
// loaded: row lengths are multiples of 32.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "codec/base/ids.h"
#include "engine/model/activation.h"

namespace kvfs::model::cpu {

inline constexpr int kBlock = 32;  // inputs that share a scale
inline constexpr int kGroup = 8;   // outputs interleaved in a quantized matrix
inline constexpr int kPanel = 32;  // outputs interleaved in a plain one; keys in a tile
inline constexpr int kPage = kBlockTokens;

// Where column c of 16 lies among 16 bf16, so that even and odd halves of words are eight
// neighbours each. Other element types keep their order.
constexpr int bf16_slot(int c) {
  return (c & ~15) + ((c & 8) == 0 ? 2 * (c & 7) : 2 * (c & 7) + 1);
}

// A value that stands far out of its block of 32 and would spoil the scale of the others: kept as
// it is, with 0 in its int8's place, and multiplied in fp32 after the blocks. On SmolLM2 a fifth of
// the blocks have one; without them the error of a product is more than twice as large.
struct Outlier {
  std::int32_t row;
  std::int32_t column;  // −1: none
  float value;
};
inline constexpr float kOutlierRatio = 2.0F;  // to the block's second largest
inline constexpr int kRowBlock = 64;          // rows that stay in the first cache for a few outputs

// Rows of int8 with a scale for each block of 32: value ≈ scale · int8.
struct QuantizedRows {
  const std::int8_t* values;  // [rows, columns]
  const float* scales;        // [rows, columns / 32]
  const float* sums;          // [rows, columns / 32]: scale · sum of the block's int8
  // Of each kRowBlock rows, by column, then row: list i is outliers[starts[i], starts[i + 1]).
  const Outlier* outliers;
  const std::int32_t* outlier_starts;
  int rows;
  int columns;
};

enum class Packing : std::uint8_t {
  kQ4_1,  // groups of 8 outputs; for each block of 32 inputs: 128 bytes of nibbles, 8 fp16 d, 8
          // fp16 m
  kQ4_0,  // the same without m: it is −8·d
  kQ8_0,  // 256 bytes of int8, 8 fp16 d
  kF32,   // panels of 32 outputs, [inputs, 32]
  kF16,
  kBF16,  // columns in bf16_slot order
};

struct MatrixView {
  Packing packing;
  int inputs;
  int outputs;
  const std::uint8_t*
      data;  // packed, 64-byte aligned; the last group or panel is filled with zeros
};

// Where outputs go: y[row · stride + output], set or (residual) added to what is there.
struct Output {
  float* y;
  std::size_t stride;
  bool accumulate;
};

// Attention of some positions' queries to one page, for the heads that share one KV head.
struct AttendPage {
  const float* queries;  // row (position p, head g): queries + p · query_stride + g · width; scaled
  std::size_t query_stride;
  int positions;     // at most kAttendPositions
  int heads;         // query heads that share the KV head
  int width;         // of a head
  const void* keys;  // kv_pages.h layout, bf16 or fp32
  const void* values;
  int value_stride = kPage;  // slots from one panel of values to the next
  int first_slot = 0;        // of the page's own, 0 … 31; the sums' order is counted from it
  int slots = kPage;         // end of the page's own, at most first_slot + 256
  int first_valid;  // end of the slots that the first position may see; each next position sees
                    // one more, up to `slots`
  int first_seen;  // the first slot that the first position sees (a window); below first_slot: from
                   // there on; each next position begins one later. None left: maximum
                   // kNothingSeen, sum 0
  float soft_cap;  // score → cap · tanh(score / cap); 0: none
  float* scores;   // scratch [positions, heads, kAttendScores]; left in it: e^(score − maximum)
  float* maxima;   // out [positions, heads]
  float* sums;     // out [positions, heads]
  float* outputs;  // out [positions, heads, width], not yet divided by the sum
};
inline constexpr int kAttendPositions = 8;
inline constexpr int kAttendScores = kPage + kPanel;  // slots that a task may span, in whole tiles
inline constexpr float kNothingSeen = -1e30F;         // finite: differences of two stay numbers

struct Kernels {
  const char* name;  // "avx512vnni", "avxvnni", "avx2", "portable"

  // out[i] = x[i] · weight[i] / sqrt(mean(x²) + epsilon)
  void (*rms_norm)(const float* x, const float* weight, float epsilon, int n, float* out);
  // One row: values [n], scales, sums and outliers [n / 32], the outliers' rows left open.
  void (*quantize)(const float* x, int n, std::int8_t* values, float* scales, float* sums,
                   Outlier* outliers);
  // out[i] = (x[i] − mean) / sqrt(variance + epsilon) · weight[i] (+ bias[i]; may be null)
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float epsilon, int n,
                     float* out);
  // out[i] = activation(x[i]) (· factor[i]; may be null)
  void (*activate)(Activation activation, const float* x, const float* factor, int n, float* out);
  // y[i] += factor · x[i]
  void (*add_scaled)(float* y, const float* x, float factor, int n);
  // x[i] = cap · tanh(x[i] / cap)
  void (*soft_cap)(float* x, float cap, int n);
  // Rotates the pairs (i, i + half) of one head by cosines and sines [half]; any half.
  void (*rotate)(float* head, const float* cosines, const float* sines, int half);

  // Units begin … end (groups of 8 outputs) of a quantized matrix, all rows.
  void (*multiply_quantized)(const QuantizedRows& x, const MatrixView& w, int begin, int end,
                             Output out);
  // Units begin … end (panels of 32 outputs) of a plain one; x is [rows, inputs].
  void (*multiply_plain)(const float* x, int rows, const MatrixView& w, int begin, int end,
                         Output out);

  void (*attend_bf16)(const AttendPage& task);
  void (*attend_f32)(const AttendPage& task);
  // Joins the attention to one more page into what the pages before it gave.
  void (*merge)(float& maximum, float& sum, float* output, float page_maximum, float page_sum,
                const float* page_output, int width);
  // out[i] = x[i] · factor or x[i] / divisor, for scaling queries and closing attention.
  void (*scale)(float* x, float factor, int n);
  void (*divide)(const float* x, float divisor, int n, float* out);
};

const Kernels& portable_kernels();
std::vector<const Kernels*> usable_kernels();  // by this CPU and build, the fastest first
const Kernels& best_kernels();

}  // namespace kvfs::model::cpu

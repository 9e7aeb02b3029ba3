// Rows of activations as int8, for matrices that stay quantized. Scratch of the engine thread; rows
// are quantized by the pool's threads.
#pragma once

#include <vector>

#include "engine/model/cpu/fork_join.h"
#include "engine/model/cpu/kernels.h"

namespace kvfs::model::cpu {

class RowQuantizer {
 public:
  RowQuantizer(const Kernels& kernels, int max_rows, int widest);

  // Row `row` of columns values; different rows at once. list() once all are there.
  void quantize(const float* x, int row, int columns);
  void list(int rows, int columns);
  // What was quantized last.
  QuantizedRows view(int rows, int columns) const;

 private:
  const Kernels& kernels_;
  std::vector<std::int8_t> int8_;  // [rows, widest]
  std::vector<float> scales_;      // [rows, blocks]
  std::vector<float> sums_;
  std::vector<Outlier> found_;     // [rows, blocks]
  std::vector<Outlier> outliers_;  // listed, see QuantizedRows
  std::vector<std::int32_t> outlier_starts_;
};

}  // namespace kvfs::model::cpu

#include "engine/model/cpu/row_quantizer.h"

#include <algorithm>

namespace kvfs::model::cpu {
namespace {
std::size_t size(int a, int b) { return static_cast<std::size_t>(a) * static_cast<std::size_t>(b); }
}  // namespace

RowQuantizer::RowQuantizer(const Kernels& kernels, int max_rows, int widest)
    : kernels_(kernels),
      int8_(size(max_rows, widest)),
      scales_(size(max_rows, widest / kBlock)),
      sums_(scales_.size()),
      found_(scales_.size()) {}

void RowQuantizer::quantize(const float* x, int row, int columns) {
  const std::size_t block = size(row, columns / kBlock);
  kernels_.quantize(x, columns, &int8_[size(row, columns)], &scales_[block], &sums_[block],
                    &found_[block]);
}

void RowQuantizer::list(int rows, int columns) {
  const int blocks = columns / kBlock;
  outliers_.clear();
  outlier_starts_.assign(1, 0);
  for (int first = 0; first < rows; first += kRowBlock) {
    for (int block = 0; block < blocks; ++block) {
      const auto begin = static_cast<std::ptrdiff_t>(outliers_.size());
      for (int row = first; row < std::min(rows, first + kRowBlock); ++row) {
        Outlier found = found_[size(row, blocks) + static_cast<std::size_t>(block)];
        if (found.column < 0) continue;
        found.row = row;
        outliers_.push_back(found);
      }
      // Rows that share a column (they often do) one after the other: its weights are unpacked
      // once.
      std::sort(outliers_.begin() + begin, outliers_.end(), [](const Outlier& a, const Outlier& b) {
        return a.column != b.column ? a.column < b.column : a.row < b.row;
      });
    }
    outlier_starts_.push_back(static_cast<std::int32_t>(outliers_.size()));
  }
}

QuantizedRows RowQuantizer::view(int rows, int columns) const {
  return {int8_.data(),           scales_.data(), sums_.data(), outliers_.data(),
          outlier_starts_.data(), rows,           columns};
}

}  // namespace kvfs::model::cpu

// A gated short convolution over a step's rows (architecture.h, Convolution), and its state: the
// inputs B · z of the positions before, in the sequences' pages.
//
// Inputs are rounded to the pages' type before anything reads them, and a row's taps are added from
// the oldest to the newest: its bits depend on the inputs before it alone, be they of this step,
// computed long ago, or restored.
#pragma once

#include <span>
#include <vector>

#include "engine/model/cpu/fork_join.h"
#include "engine/model/cpu/step_row.h"
#include "engine/model/cpu/weights.h"

namespace kvfs::model::cpu {

class ShortConvolution {
 public:
  // A shape without convolutions takes no memory.
  ShortConvolution(const PageShape& shape, int channels, int max_rows);

  // gates: [rows, 3 · channels], B | C | z. out: [rows, channels]. Writes the inputs that the pages
  // keep.
  void run(int layer, const ConvolutionWeights& weights, std::span<const StepRow> rows,
           const float* gates, float* out, ForkJoin& pool);

 private:
  void find_input(const float* gates, float* input) const;
  void load(const std::uint8_t* kept, float* input) const;
  void store(const float* input, std::uint8_t* kept) const;
  // The input `back` positions before a row's; null before the first position. room: for one that
  // comes out of a page.
  const float* input(int layer, std::span<const StepRow> rows, int row, int back,
                     float* room) const;

  PageShape shape_;
  std::size_t channels_;
  std::vector<float> inputs_;  // [rows, channels], of the step
  std::vector<float> before_;  // [rows, channels], room for one out of a page
};

}  // namespace kvfs::model::cpu

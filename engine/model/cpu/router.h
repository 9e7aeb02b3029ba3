// Which experts a row of a mixture goes to, and with which shares.
//
// Shares are the softmax over all experts, in fp32; equal ones go to the lower number. A row's
// choice depends on the row alone, and an expert's answers are added in ascending order of experts,
// so that a row's bits do not depend on its company. Engine thread only.
#pragma once

#include <vector>

namespace kvfs::model::cpu {

class Router {
 public:
  // scores: [rows, experts], row r at scores + r · stride. renormalized: the shares chosen are made
  // to sum to 1.
  void choose(const float* scores, int stride, int rows, int experts, int chosen,
              bool renormalized);

  struct Visit {
    int row;
    float share;
  };
  // Rows that chose the expert, ascending.
  const std::vector<Visit>& visits(int expert) const {
    return visits_[static_cast<std::size_t>(expert)];
  }

 private:
  std::vector<std::vector<Visit>> visits_;  // by expert
  std::vector<float> shares_;
  std::vector<int> order_;
};

}  // namespace kvfs::model::cpu

// What is added up of a step's attention while it is computed, for methods of pruning
// (engine/prune/observation.h).
//
// One sequence's; engine thread.
#pragma once

#include <cstddef>
#include <vector>

#include "codec/base/ids.h"
#include "engine/model/cpu/fork_join.h"
#include "engine/prune/observation.h"

namespace kvfs::model::cpu {

// Mean and covariance of a layer's queries, by head, before they are turned. Sums of what lies
// about the first rows' mean, so that nothing cancels.
class QueryMoments {
 public:
  QueryMoments(int layers, int heads, int width);

  // rows: [count, heads · width]
  void add(int layer, const float* rows, int count, ForkJoin& threads);
  // [width] and [width, width]
  std::vector<double> mean(int layer, int head) const;
  std::vector<double> covariance(int layer, int head) const;

 private:
  struct Sums {
    std::vector<float> origin;   // [width]; empty: nothing was added yet
    std::vector<double> first;   // [width]
    std::vector<double> second;  // [width, width]
  };
  void add_to(Sums& sums, const float* rows, int count) const;
  const Sums& of(int layer, int head) const;

  int heads_;
  int width_;
  std::vector<int> counts_;  // by layer
  std::vector<Sums> sums_;   // by layer and head
};

struct Watch {
  enum class Fold {
    kNothing,
    kSum,      // of all weights that an entry was given
    kHighest,  // of those between begin and end; the softmax is over the sinks, them, and what
               // follows `after`
  };
  Fold fold = Fold::kNothing;
  Position begin = 0;
  Position end = 0;
  Position after = 0;
  std::vector<prune::HeadScores> weights;  // [layer][query head][entry of its KV head]
  QueryMoments* queries = nullptr;         // of tokens behind the sinks; null: not wanted

  static Watch of_weights(Fold fold, std::size_t layers, int heads) {
    Watch watch{.fold = fold};
    watch.weights.assign(layers, prune::HeadScores(static_cast<std::size_t>(heads)));
    return watch;
  }
};

}  // namespace kvfs::model::cpu

#include "engine/model/cpu/observe.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "engine/model/cpu/kernels.h"
#include "engine/model/dequantize.h"

namespace kvfs::model::cpu {
namespace {

float norm_of(const PageShape& shape, const std::uint8_t* row) {
  double sum = 0;
  for (int i = 0; i < shape.width; ++i) {
    float x;
    if (shape.dtype == DType::kF32) {
      std::memcpy(&x, row + static_cast<std::ptrdiff_t>(i) * 4, sizeof x);
    } else {
      std::uint16_t bits;
      std::memcpy(&bits, row + static_cast<std::ptrdiff_t>(i) * 2, sizeof bits);
      x = bf16_to_float(bits);
    }
    sum += static_cast<double>(x) * x;
  }
  return static_cast<float>(std::sqrt(sum));
}

}  // namespace

prune::Observation list_entries(const PageShape& shape, const PagedSequence& sequence) {
  prune::Observation seen(shape.layers.size());
  for (std::size_t layer = 0; layer < seen.size(); ++layer)
    seen[layer].positions = sequence.positions(shape, static_cast<int>(layer));
  return seen;
}

void measure_keys(const PageShape& shape, const PagedSequence& sequence, ForkJoin& threads,
                  prune::Observation& to) {
  const std::size_t row = static_cast<std::size_t>(shape.width) * size_of(shape.dtype);
  threads.for_each(static_cast<int>(to.size()), [&](int layer, int) {
    prune::HeadScores& norms = to[static_cast<std::size_t>(layer)].scores;
    norms.resize(static_cast<std::size_t>(shape.kv_heads));
    for (int page = 0; page < sequence.pages(); ++page) {
      const int end = std::min(kPage, sequence.next_pos() - page * kPage);
      for (const KvPiece& piece :
           sequence.page(page).take_out(static_cast<std::uint16_t>(layer), page * kPage, end)) {
        const std::uint8_t* key = piece.key.data();
        for (std::size_t head = 0; head < piece.head_count; ++head) {
          for (std::size_t i = 0; i < piece.positions.size(); ++i, key += row)
            norms[piece.head_begin + head].push_back(norm_of(shape, key));
        }
      }
    }
  });
}

void take_weights(const PageShape& shape, const PagedSequence& weighed,
                  const std::vector<prune::HeadScores>& weights, prune::Observation& to) {
  for (std::size_t layer = 0; layer < to.size(); ++layer) {
    const auto there = weighed.positions(shape, static_cast<int>(layer));
    const std::size_t group = weights[layer].size() / there.size();
    for (std::size_t head = 0; head < weights[layer].size(); ++head) {
      const std::vector<Position>& all = there[head / group];
      std::vector<float>& scores = to[layer].scores.emplace_back();
      auto at = all.begin();
      for (const Position pos : to[layer].positions[head / group]) {
        at = std::lower_bound(at, all.end(), pos);
        const auto entry = static_cast<std::size_t>(at - all.begin());
        // What no query reached for (a window) has no weight.
        const bool seen = entry < weights[layer][head].size();
        scores.push_back(seen ? weights[layer][head][entry] : 0.0F);
      }
    }
  }
}

void divide_by_queries(const Architecture& architecture, Position end, prune::Observation& to) {
  for (std::size_t layer = 0; layer < to.size(); ++layer) {
    const Position window = architecture.layers[layer].window;
    const std::size_t group = to[layer].scores.size() / to[layer].positions.size();
    for (std::size_t head = 0; head < to[layer].scores.size(); ++head) {
      const std::vector<Position>& positions = to[layer].positions[head / group];
      for (std::size_t i = 0; i < positions.size(); ++i) {
        const Position later = end - positions[i];
        const Position could_see = window > 0 ? std::min(window, later) : later;
        to[layer].scores[head][i] /= static_cast<float>(could_see);
      }
    }
  }
}

}  // namespace kvfs::model::cpu

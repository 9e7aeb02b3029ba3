// The control: a seeded choice, of each head its own.
#include "engine/prune/rules.h"
#include "engine/prune/scores.h"

namespace kvfs::prune {
namespace {

// splitmix64: every input another, evenly spread output.
std::uint64_t mixed(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

}  // namespace

LayerKept keep(const Random& rule, const LayerObservation& layer, LayerPlace place) {
  LayerKept kept;
  for (std::size_t head = 0; head < layer.positions.size(); ++head) {
    const std::uint64_t stream =
        mixed(mixed(rule.seed) + (static_cast<std::uint64_t>(place.index) << 32) + head);
    std::vector<float> scores;
    for (std::size_t i = 0; i < layer.positions[head].size(); ++i) {
      scores.push_back(static_cast<float>(mixed(stream + i) >> 40));
    }
    const auto count = static_cast<std::int64_t>(scores.size());
    kept.push_back(highest(scores, static_cast<std::size_t>(rule.keep.of(count))));
  }
  return kept;
}

}  // namespace kvfs::prune

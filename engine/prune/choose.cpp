#include "engine/prune/choose.h"

#include <algorithm>
#include <string>

#include "engine/prune/rules.h"

namespace kvfs::prune {
namespace {

tl::unexpected<Error> unfit(const Method& method, std::string why) {
  return fail(ErrorCode::kInternal, "prune by " + std::string(name_of(method)), std::move(why));
}

bool as_long_as(const HeadScores& scores, const LayerObservation& layer) {
  const std::size_t group = scores.size() / layer.positions.size();
  for (std::size_t head = 0; head < scores.size(); ++head) {
    if (scores[head].size() != layer.positions[head / group].size()) return false;
  }
  return true;
}

Status check_layer(const Method& method, const LayerObservation& layer) {
  const std::size_t kv_heads = layer.positions.size();
  if (kv_heads == 0 || std::ranges::any_of(layer.positions, &std::vector<Position>::empty)) {
    return fail(ErrorCode::kInvalid, "prune by " + std::string(name_of(method)),
                "there is nothing in the cache");
  }
  const Needs needs = needs_of(method);
  if (needs == Needs::kNothing) return {};
  if (layer.scores.empty() || layer.scores.size() % kv_heads != 0 ||
      (needs == Needs::kKeyNorms && layer.scores.size() != kv_heads) ||
      !as_long_as(layer.scores, layer)) {
    return unfit(method, "the scores are not one an entry");
  }
  if (needs == Needs::kExpectedQueries &&
      (layer.value_norms.size() != kv_heads || !as_long_as(layer.value_norms, layer))) {
    return unfit(method, "the values' norms are not one an entry");
  }
  return {};
}

// These choose once for all heads of a layer.
bool wants_equal_heads(const Method& method) {
  return std::holds_alternative<Pyramid>(method) || std::holds_alternative<Tova>(method);
}

struct Rule {
  const Observation& observation;

  Kept operator()(const KvZip& rule) const { return keep(rule, observation); }
  template <class PerLayer>
  Kept operator()(const PerLayer& rule) const {
    Kept kept;
    LayerPlace place{.index = 0, .count = static_cast<int>(observation.size())};
    for (; place.index < place.count; ++place.index) {
      kept.push_back(keep(rule, observation[static_cast<std::size_t>(place.index)], place));
    }
    return kept;
  }
};

}  // namespace

Result<Kept> choose(const Method& method, const Observation& observation) {
  const std::string what = "prune by " + std::string(name_of(method));
  for (const LayerObservation& layer : observation) {
    KVFS_TRY(check_layer(method, layer));
    if (wants_equal_heads(method) &&
        std::ranges::adjacent_find(layer.positions, std::ranges::not_equal_to{}) !=
            layer.positions.end()) {
      return fail(ErrorCode::kInvalid, what, "heads of this state hold different positions",
                  "take a method that chooses head by head: snapkv, knorm, expected");
    }
  }
  Kept kept = std::visit(Rule{observation}, method);
  for (const LayerKept& layer : kept) {
    if (std::ranges::any_of(layer, &KeptEntries::empty)) {
      return fail(ErrorCode::kInvalid, what, "a layer would keep nothing of some head",
                  "leave it more");
    }
  }
  return kept;
}

}  // namespace kvfs::prune

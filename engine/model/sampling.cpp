#include "engine/model/sampling.h"

#include <algorithm>
#include <cmath>

#include "engine/model/weigh.h"

namespace kvfs::model {
namespace {

struct Candidate {
  float logit;
  TokenId id;
  std::uint64_t weight = 0;  // weigh.h's
};
// Falling logits, ties to the lower id: a total order, so that selection is the same everywhere.
bool before(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

bool changes_logits(const SamplingParams& params) {
  return params.repeat_penalty != 1.0F || params.presence_penalty != 0.0F ||
         params.frequency_penalty != 0.0F || !params.logit_bias.empty();
}

bool within(TokenId id, std::span<const float> logits) {
  return id >= 0 && static_cast<std::size_t>(id) < logits.size();
}

void penalize_repeats(std::span<float> logits, std::span<const TokenId> history, float penalty) {
  const std::size_t count = std::min<std::size_t>(kRepeatWindow, history.size());
  std::vector<TokenId> window(history.end() - static_cast<std::ptrdiff_t>(count), history.end());
  std::sort(window.begin(), window.end());
  window.erase(std::unique(window.begin(), window.end()), window.end());
  for (const TokenId id : window) {
    if (!within(id, logits)) continue;
    float& value = logits[static_cast<std::size_t>(id)];
    value = value > 0.0F ? value / penalty : value * penalty;
  }
}

void penalize_counts(std::span<float> logits, const Said& said, const SamplingParams& params) {
  const auto generated = said.history.last(std::min(said.generated, said.history.size()));
  std::vector<std::uint32_t> counts(logits.size());
  for (const TokenId id : generated) {
    if (within(id, logits)) ++counts[static_cast<std::size_t>(id)];
  }
  for (std::size_t id = 0; id < counts.size(); ++id) {
    if (counts[id] == 0) continue;
    logits[id] -=
        static_cast<float>(counts[id]) * params.frequency_penalty + params.presence_penalty;
  }
}

std::vector<float> changed(std::span<const float> logits, const Said& said,
                           const SamplingParams& params) {
  std::vector<float> out(logits.begin(), logits.end());
  for (const auto& [id, bias] : params.logit_bias) {
    if (within(id, out)) out[static_cast<std::size_t>(id)] += bias;
  }
  if (params.repeat_penalty != 1.0F) penalize_repeats(out, said.history, params.repeat_penalty);
  if (params.presence_penalty != 0.0F || params.frequency_penalty != 0.0F) {
    penalize_counts(out, said, params);
  }
  return out;
}

Candidate best_of(std::span<const float> logits) {
  Candidate best{logits[0], 0};
  for (std::size_t i = 1; i < logits.size(); ++i) {
    if (logits[i] > best.logit) best = {logits[i], static_cast<TokenId>(i)};
  }
  return best;
}

std::uint64_t sum_of(const std::vector<Candidate>& candidates) {
  std::uint64_t total = 0;
  for (const Candidate& c : candidates) total += c.weight;
  return total;
}

// Keeps the fewest of the first, in the given order, whose weights reach `wanted`.
template <class Item, class Before>
void keep_first(std::vector<Item>& items, std::uint64_t wanted, const Before& first) {
  std::uint64_t sum = 0;
  std::size_t kept = 0;
  std::size_t sorted = 0;
  // Sorted in growing pieces: what is kept is mostly a few of tens of thousands.
  for (std::size_t piece = 128; kept < items.size() && (kept == 0 || sum < wanted); piece *= 4) {
    const std::size_t end = std::min(items.size(), sorted + piece);
    const auto from = items.begin() + static_cast<std::ptrdiff_t>(sorted);
    const auto to = items.begin() + static_cast<std::ptrdiff_t>(end);
    if (to != items.end()) std::nth_element(from, to, items.end(), first);
    std::sort(from, to, first);
    sorted = end;
    while (kept < sorted && (kept == 0 || sum < wanted)) sum += items[kept++].weight;
  }
  items.resize(kept);
}

// Those whose information −log p is nearest the entropy, until they hold a share of `mass`.
void keep_typical(std::vector<Candidate>& candidates, float mass) {
  struct Shifted : Candidate {
    double distance;
  };
  const std::uint64_t total = sum_of(candidates);
  double entropy = 0.0;
  std::vector<Shifted> shifted;
  shifted.reserve(candidates.size());
  for (const Candidate& c : candidates) {
    const double p = static_cast<double>(c.weight) / static_cast<double>(total);
    if (!(p > 0.0)) continue;
    shifted.push_back({c, -std::log(p)});
    entropy += p * shifted.back().distance;
  }
  if (shifted.empty()) return;
  for (Shifted& each : shifted) each.distance = std::abs(each.distance - entropy);
  keep_first(shifted, share_of(total, mass), [](const Shifted& a, const Shifted& b) {
    return a.distance != b.distance ? a.distance < b.distance : a.id < b.id;
  });
  candidates.assign(shifted.begin(), shifted.end());
}

}  // namespace

TokenId sample(std::span<const float> logits, const Said& said, const SamplingParams& params,
               Position position) {
  std::vector<float> own;
  if (changes_logits(params)) {
    own = changed(logits, said, params);
    logits = own;
  }
  const Candidate best = best_of(logits);
  if (!(params.temperature > 0.0F)) return best.id;

  std::vector<Candidate> candidates(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i)
    candidates[i] = {logits[i], static_cast<TokenId>(i)};
  if (params.top_k > 0 && static_cast<std::size_t>(params.top_k) < candidates.size()) {
    const auto end = candidates.begin() + params.top_k;
    std::nth_element(candidates.begin(), end, candidates.end(), before);
    candidates.erase(end, candidates.end());
  }
  for (Candidate& c : candidates) c.weight = weigh(c.logit, best.logit, params.temperature);
  if (params.top_p < 1.0F) {
    keep_first(candidates, share_of(sum_of(candidates), params.top_p), before);
  }
  if (params.min_p > 0.0F) {
    const std::uint64_t least = least_weight(params.min_p);
    std::erase_if(candidates, [&](const Candidate& c) { return c.weight < least; });
  }
  if (params.typical < 1.0F) keep_typical(candidates, params.typical);

  // By id, so that the draw does not depend on how the candidates were selected.
  const auto by_id = [](const Candidate& a, const Candidate& b) { return a.id < b.id; };
  if (!std::is_sorted(candidates.begin(), candidates.end(), by_id)) {
    std::sort(candidates.begin(), candidates.end(), by_id);
  }
  const std::uint64_t point = point_of(random_bits(params.seed, position), sum_of(candidates));
  std::uint64_t sum = 0;
  for (const Candidate& c : candidates) {
    sum += c.weight;
    if (sum > point) return c.id;
  }
  return best.id;  // logits that are no numbers weigh nothing
}

Logprobs logprobs_of(std::span<const float> logits, TokenId token, std::size_t top) {
  const double best = static_cast<double>(best_of(logits).logit);
  double total = 0.0;
  for (const float value : logits) total += std::exp(static_cast<double>(value) - best);
  const double norm = best + std::log(total);
  const auto logprob = [&](TokenId id) {
    const double value = static_cast<double>(logits[static_cast<std::size_t>(id)]) - norm;
    return TokenLogprob{id, static_cast<float>(std::min(value, 0.0))};
  };
  std::vector<Candidate> candidates(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i)
    candidates[i] = {logits[i], static_cast<TokenId>(i)};
  top = std::min(top, candidates.size());
  std::partial_sort(candidates.begin(), candidates.begin() + static_cast<std::ptrdiff_t>(top),
                    candidates.end(), before);
  Logprobs out{.token = logprob(token)};
  for (std::size_t i = 0; i < top; ++i) out.top.push_back(logprob(candidates[i].id));
  return out;
}

}  // namespace kvfs::model

#include "engine/model/sampling.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace kvfs::model {
namespace {

// Philox4x32-10 (Salmon et al., SC 2011): key = seed, counter = position.
std::array<std::uint32_t, 4> philox(std::uint64_t seed, std::uint64_t counter) {
  auto key0 = static_cast<std::uint32_t>(seed);
  auto key1 = static_cast<std::uint32_t>(seed >> 32);
  std::array<std::uint32_t, 4> x{static_cast<std::uint32_t>(counter),
                                 static_cast<std::uint32_t>(counter >> 32), 0, 0};
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53U} * x[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57U} * x[2];
    x = {static_cast<std::uint32_t>(b >> 32) ^ x[1] ^ key0, static_cast<std::uint32_t>(b),
         static_cast<std::uint32_t>(a >> 32) ^ x[3] ^ key1, static_cast<std::uint32_t>(a)};
    key0 += 0x9E3779B9U;
    key1 += 0xBB67AE85U;
  }
  return x;
}

double uniform(std::uint64_t seed, Position position) {  // [0, 1), 53 bits
  const auto x = philox(seed, static_cast<std::uint64_t>(position));
  const std::uint64_t bits = (static_cast<std::uint64_t>(x[0]) << 32 | x[1]) >> 11;
  return static_cast<double>(bits) * 0x1p-53;
}

struct Candidate {
  float value;  // logit, then weight e^(logit − maximum)
  TokenId id;
};
// Falling value, ties to the lower id: a total order, so that selection is the same everywhere.
bool before(const Candidate& a, const Candidate& b) {
  return a.value != b.value ? a.value > b.value : a.id < b.id;
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
    if (logits[i] > best.value) best = {logits[i], static_cast<TokenId>(i)};
  }
  return best;
}

double sum_of(const std::vector<Candidate>& weights) {
  double total = 0.0;
  for (const Candidate& c : weights) total += static_cast<double>(c.value);
  return total;
}

// Keeps the fewest of the first, in the given order, whose weights reach `wanted`.
template <class Item, class Before>
void keep_first(std::vector<Item>& items, double wanted, const Before& first) {
  double sum = 0.0;
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
    while (kept < sorted && (kept == 0 || sum < wanted))
      sum += static_cast<double>(items[kept++].value);
  }
  items.resize(kept);
}

// Those whose information −log p is nearest the entropy, until they hold a share of `mass`.
void keep_typical(std::vector<Candidate>& candidates, float mass) {
  struct Shifted : Candidate {
    double distance;
  };
  const double total = sum_of(candidates);
  double entropy = 0.0;
  std::vector<Shifted> shifted;
  shifted.reserve(candidates.size());
  for (const Candidate& c : candidates) {
    const double p = static_cast<double>(c.value) / total;
    if (!(p > 0.0)) continue;
    shifted.push_back({c, -std::log(p)});
    entropy += p * shifted.back().distance;
  }
  if (shifted.empty()) return;
  for (Shifted& each : shifted) each.distance = std::abs(each.distance - entropy);
  keep_first(shifted, total * static_cast<double>(mass), [](const Shifted& a, const Shifted& b) {
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
  for (Candidate& c : candidates) c.value = std::exp((c.value - best.value) / params.temperature);
  if (params.top_p < 1.0F) {
    keep_first(candidates, sum_of(candidates) * static_cast<double>(params.top_p), before);
  }
  if (params.min_p > 0.0F) {  // the best weighs 1
    std::erase_if(candidates, [&](const Candidate& c) { return c.value < params.min_p; });
  }
  if (params.typical < 1.0F) keep_typical(candidates, params.typical);

  // By id, so that the draw does not depend on how the candidates were selected.
  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
  const double target = uniform(params.seed, position) * sum_of(candidates);
  double sum = 0.0;
  for (const Candidate& c : candidates) {
    sum += static_cast<double>(c.value);
    if (sum > target) return c.id;
  }
  return candidates.back().id;  // the sums differ in their last bit
}

Logprobs logprobs_of(std::span<const float> logits, TokenId token, std::size_t top) {
  const double best = static_cast<double>(best_of(logits).value);
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

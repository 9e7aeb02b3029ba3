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

std::vector<Candidate> penalized(std::span<const float> logits, std::span<const TokenId> recent,
                                 float penalty) {
  std::vector<Candidate> candidates(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i)
    candidates[i] = {logits[i], static_cast<TokenId>(i)};
  if (penalty == 1.0F) return candidates;
  std::vector<TokenId> window(
      recent.end() - std::min<std::ptrdiff_t>(kRepeatWindow, std::ssize(recent)), recent.end());
  std::sort(window.begin(), window.end());
  window.erase(std::unique(window.begin(), window.end()), window.end());
  for (const TokenId id : window) {
    if (id < 0 || static_cast<std::size_t>(id) >= logits.size()) continue;
    float& value = candidates[static_cast<std::size_t>(id)].value;
    value = value > 0.0F ? value / penalty : value * penalty;
  }
  return candidates;
}

// Keeps the fewest of the likeliest whose share reaches top_p. weights: e^…, any order.
void keep_nucleus(std::vector<Candidate>& candidates, double total, float top_p) {
  const double wanted = total * static_cast<double>(top_p);
  double sum = 0.0;
  std::size_t kept = 0;
  std::size_t sorted = 0;
  // Sorted in growing pieces: the nucleus is mostly a few of tens of thousands.
  for (std::size_t piece = 128; kept < candidates.size() && (kept == 0 || sum < wanted);
       piece *= 4) {
    const std::size_t end = std::min(candidates.size(), sorted + piece);
    const auto from = candidates.begin() + static_cast<std::ptrdiff_t>(sorted);
    const auto to = candidates.begin() + static_cast<std::ptrdiff_t>(end);
    if (to != candidates.end()) std::nth_element(from, to, candidates.end(), before);
    std::sort(from, to, before);
    sorted = end;
    while (kept < sorted && (kept == 0 || sum < wanted))
      sum += static_cast<double>(candidates[kept++].value);
  }
  candidates.resize(kept);
}

}  // namespace

TokenId sample(std::span<const float> logits, std::span<const TokenId> recent,
               const SamplingParams& params, Position position) {
  std::vector<Candidate> candidates = penalized(logits, recent, params.repeat_penalty);
  const Candidate best = *std::min_element(candidates.begin(), candidates.end(), before);
  if (!(params.temperature > 0.0F)) return best.id;

  if (params.top_k > 0 && static_cast<std::size_t>(params.top_k) < candidates.size()) {
    const auto end = candidates.begin() + params.top_k;
    std::nth_element(candidates.begin(), end, candidates.end(), before);
    candidates.erase(end, candidates.end());
  }
  double total = 0.0;
  for (Candidate& c : candidates) {
    c.value = std::exp((c.value - best.value) / params.temperature);
    total += static_cast<double>(c.value);
  }
  if (params.top_p < 1.0F) keep_nucleus(candidates, total, params.top_p);
  if (params.min_p > 0.0F) {  // the best weighs 1
    std::erase_if(candidates, [&](const Candidate& c) { return c.value < params.min_p; });
  }

  // By id, so that the draw does not depend on how the candidates were selected.
  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
  total = 0.0;
  for (const Candidate& c : candidates) total += static_cast<double>(c.value);
  const double target = uniform(params.seed, position) * total;
  double sum = 0.0;
  for (const Candidate& c : candidates) {
    sum += static_cast<double>(c.value);
    if (sum > target) return c.id;
  }
  return best.id;
}

}  // namespace kvfs::model

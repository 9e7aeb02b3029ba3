#include "engine/model/cuda/generator.h"

#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <unordered_map>
#include <utility>

namespace kvfs::model::cuda {
namespace {

void check(cudaError_t error) {
  if (error != cudaSuccess) throw ForwardError(error);
}

cudaStream_t stream() { return c10::cuda::getCurrentCUDAStream(); }

template <class T>
T* data(const at::Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

DecodeWeights decode_weights(const LlamaSizes& sizes, const Weights& weights) {
  DecodeWeights out{sizes,
                    weights.embedding.data_ptr(),
                    data<float>(weights.output_norm),
                    data<float>(weights.frequencies),
                    weights.output.matrix,
                    {},
                    weights.embedding.scalar_type() == at::kHalf};
  for (const LayerWeights& layer : weights.layers) {
    out.layers.push_back({data<float>(layer.attn_norm), layer.qkv.matrix, layer.out.matrix,
                          data<float>(layer.ffn_norm), layer.gate_up.matrix, layer.down.matrix});
  }
  return out;
}

// A few sizes only, so that a growing history seldom needs a new recording.
std::size_t rounded_up(std::size_t count) {
  const std::size_t step = std::max<std::size_t>(4, std::bit_floor(count) / 4);
  return (count + step - 1) / step * step;
}

// What bias and penalties come to for each token that they touch, as far as the host knows.
void add_changes(const AheadItem& item, int vocab, std::vector<LogitChange>& changes) {
  const SamplingParams& sampling = *item.sampling;
  const auto& history = item.said.history;
  std::unordered_map<TokenId, std::size_t> places;
  const auto change_of = [&](TokenId token) -> LogitChange* {
    if (token < 0 || token >= vocab) return nullptr;
    const auto [at, added] = places.try_emplace(token, changes.size());
    if (added) changes.push_back({token, 0.0F, 0, 0});
    return &changes[at->second];
  };
  for (const auto& [token, bias] : sampling.logit_bias) {
    if (auto* change = change_of(token)) change->bias = bias;
  }
  if (sampling.repeat_penalty != 1.0F) {
    const auto latest = static_cast<std::size_t>(kRepeatWindow - item.unheard);
    for (const TokenId token : history.last(std::min(latest, history.size()))) {
      if (auto* change = change_of(token)) change->repeated = 1;
    }
  }
  if (sampling.presence_penalty != 0.0F || sampling.frequency_penalty != 0.0F) {
    for (const TokenId token : history.last(std::min(item.said.generated, history.size()))) {
      if (auto* change = change_of(token)) ++change->count;
    }
  }
}

DrawRow draw_row(const DeviceSequence& sequence, const AheadItem& item, int vocab,
                 std::vector<LogitChange>& changes) {
  const SamplingParams& sampling = *item.sampling;
  DrawRow out{.seed = sampling.seed,
              .temperature = sampling.temperature,
              .top_k = sampling.top_k,
              .top_p = sampling.top_p,
              .min_p = sampling.min_p,
              .repeat_penalty = sampling.repeat_penalty,
              .presence_penalty = sampling.presence_penalty,
              .frequency_penalty = sampling.frequency_penalty,
              .position = sequence.next_pos() + 1,
              .drawn_at = 0,
              .changes_begin = static_cast<std::int32_t>(changes.size()),
              .changes_end = 0,
              .unheard = 0,
              .unheard_at = {}};
  add_changes(item, vocab, changes);
  out.changes_end = static_cast<std::int32_t>(changes.size());
  if (sampling.repeat_penalty != 1.0F || sampling.presence_penalty != 0.0F ||
      sampling.frequency_penalty != 0.0F) {
    out.unheard = item.unheard;
    for (int i = 0; i < item.unheard; ++i) {
      out.unheard_at[i] = sequence.drawn_at(static_cast<std::size_t>(i));
    }
  }
  return out;
}

}  // namespace

Generator::Generator(const LlamaSizes& s, const Weights& weights, at::Device device)
    : device_(device), weights_(decode_weights(s, weights)) {
  const auto fp32 = [&](std::int64_t a_row) {
    return data<float>(make(kMaxBatch * a_row, at::kFloat));
  };
  const int longest = std::max({s.width, s.ffn_width, s.heads * s.head_width});
  const auto activations = [&](std::int64_t a_row) {
    return make(kMaxBatch * a_row, weights.embedding.scalar_type()).data_ptr();
  };
  buffers_ = {.residual = fp32(s.width),
              .normed = {activations(s.width), fp32(s.width / kTileOutputs)},
              .qkv = fp32(std::int64_t{s.heads + 2 * s.kv_heads} * s.head_width),
              .turns = reinterpret_cast<float2*>(fp32(s.head_width)),
              .attended = activations(std::int64_t{s.heads} * s.head_width),
              .gated = activations(s.ffn_width),
              .logits = fp32(s.vocab),
              .fixed = {data<std::uint8_t>(
                            make(static_cast<std::int64_t>(fixed_piece_bytes(longest)), at::kByte)),
                        data<float>(make(static_cast<std::int64_t>(fixed_scale_floats(longest)),
                                         at::kFloat))}};
  drawn_ = data<std::int32_t>(make(kDrawnSteps * kMaxBatch, at::kInt));
  for (Slot& slot : slots_) {
    check(cudaEventCreateWithFlags(&slot.done, cudaEventDisableTiming));
  }
  if (heard_.room(kDrawnSteps * kMaxBatch * sizeof(std::int32_t)) == nullptr) {
    throw ForwardError(cudaErrorMemoryAllocation);
  }
}

// Steps may still write where heard_ is.
Generator::~Generator() {
  for (Slot& slot : slots_) {
    if (slot.done == nullptr) continue;
    cudaEventSynchronize(slot.done);
    cudaEventDestroy(slot.done);
  }
}

at::Tensor Generator::make(std::int64_t count, at::ScalarType type) {
  owned_.push_back(at::zeros({count}, at::TensorOptions().dtype(type).device(device_)));
  return owned_.back();
}

void Generator::make_room(at::Tensor& buffer, std::int64_t bytes) {
  if (buffer.defined() && buffer.numel() >= bytes) return;
  graphs_.clear();
  buffer = at::Tensor();  // given back first: the two need not fit side by side
  const auto size = static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(bytes)));
  buffer = at::empty({size}, at::TensorOptions().dtype(at::kByte).device(device_));
}

Generator::Plan Generator::plan(std::span<const PlanRow> rows) {
  Plan out;
  for (const PlanRow& row : rows) {
    const Position position = row.sequence->next_pos();
    out.places.push_back({position, static_cast<std::int32_t>(out.addresses.size())});
    const int pages = position / kPageTokens + 1;
    out.pages = std::max(out.pages, pages);
    for (int i = 0; i < pages; ++i) out.addresses.push_back(row.sequence->page_address(i));
    if (row.sequence->pruned()) out.pruned |= 1U << (out.places.size() - 1);
  }
  std::vector<PageWork> here;  // of one page index
  for (int page = 0; page < out.pages; ++page) {
    here.clear();
    const auto address = [&](std::size_t row) {
      return out.addresses[static_cast<std::size_t>(out.places[row].first_page + page)];
    };
    for (std::size_t r = 0; r < rows.size(); ++r) {
      const Position position = out.places[r].position;
      if (position / kPageTokens < page || (out.pruned >> r & 1) != 0) continue;
      // A row's last page is its own: it was copied before it is written.
      const bool whole = (page + 1) * kPageTokens <= position;
      const auto known = std::ranges::find_if(here, [&](const PageWork& work) {
        return whole &&
               address(static_cast<std::size_t>(std::countr_zero(work.rows))) == address(r);
      });
      if (known == here.end()) {
        here.push_back({page, 1U << r});
      } else {
        known->rows |= 1U << r;
      }
    }
    for (const PageWork& work : here) {
      (std::has_single_bit(work.rows) ? out.single : out.shared).push_back(work);
    }
  }
  return out;
}

// places, tokens, draws, work, addresses and changes in one copy, all but the last two at the same
// place in every step of a shape; no copy where the step before has left them so.
Bytes Generator::upload(std::span<const PlanRow> rows, const Plan& plan,
                        std::span<const DrawRow> draws, std::span<const LogitChange> changes) {
  constexpr std::size_t tokens_at = kMaxBatch * sizeof(RowPlace);
  constexpr std::size_t draws_at = tokens_at + kMaxBatch * sizeof(TokenId);
  constexpr std::size_t work_at = draws_at + kMaxBatch * sizeof(DrawRow);
  const std::size_t shared = plan.shared.empty() ? 0 : rounded_up(plan.shared.size());
  const std::size_t single = rounded_up(plan.single.size());
  const std::size_t single_at = work_at + shared * sizeof(PageWork);
  const std::size_t addresses_at = single_at + single * sizeof(PageWork);
  const std::size_t changes_at = addresses_at + plan.addresses.size() * sizeof(void*);
  Bytes wanted(changes_at + changes.size_bytes());
  const auto put = [&](std::size_t at, const auto& from) {
    const auto bytes = std::as_bytes(std::span(from));
    if (!bytes.empty()) std::memcpy(wanted.data() + at, bytes.data(), bytes.size());
  };
  std::vector<std::int32_t> tokens;
  for (const PlanRow& row : rows) tokens.push_back(row.token);
  put(0, plan.places);
  put(tokens_at, tokens);
  put(draws_at, draws);
  put(work_at, plan.shared);
  put(single_at, plan.single);
  put(addresses_at, plan.addresses);
  put(changes_at, changes);

  make_room(uploaded_, static_cast<std::int64_t>(wanted.size()));
  auto* device = data<std::byte>(uploaded_);
  if (wanted != std::exchange(there_, {})) {
    Slot& slot = slots_[next_slot_];
    check(cudaEventSynchronize(slot.done));  // the step that had it
    std::byte* host = slot.to_device.room(wanted.size());
    if (host == nullptr) throw ForwardError(cudaErrorMemoryAllocation);
    std::memcpy(host, wanted.data(), wanted.size());
    check(cudaMemcpyAsync(device, host, wanted.size(), cudaMemcpyHostToDevice, stream()));
  }
  auto* places = reinterpret_cast<RowPlace*>(device);
  auto* given = reinterpret_cast<std::int32_t*>(device + tokens_at);
  step_ = {places, given, static_cast<int>(rows.size()), drawn_};
  draw_ = {.logits = buffers_.logits,
           .vocab = weights_.sizes.vocab,
           .rows = step_.rows,
           .draws = reinterpret_cast<DrawRow*>(device + draws_at),
           .changes = reinterpret_cast<const LogitChange*>(device + changes_at),
           .places = places,
           .tokens = given,
           .drawn = drawn_,
           .to_host = heard_tokens()};
  history_.work = reinterpret_cast<const PageWork*>(device + work_at);
  history_.room = {static_cast<int>(shared), static_cast<int>(single)};
  history_.pages = reinterpret_cast<void* const*>(device + addresses_at);

  std::vector<DrawRow> next_draws(draws.begin(), draws.end());
  std::vector<RowPlace> next_places = plan.places;
  for (std::size_t i = 0; i < draws.size(); ++i) {
    tokens[i] = given_as(draws[i].drawn_at);
    next_draws[i].drawn_at = next_drawn_at(draws[i].drawn_at);
    ++next_draws[i].position;
    ++next_places[i].position;
  }
  put(0, next_places);
  put(tokens_at, tokens);
  put(draws_at, next_draws);
  return wanted;
}

void Generator::step(std::span<const PlanRow> rows, std::span<const DrawRow> draws,
                     std::span<const LogitChange> changes) {
  const LlamaSizes& s = weights_.sizes;
  const Plan planned = plan(rows);
  Bytes left = upload(rows, planned, draws, changes);

  history_.pruned = planned.pruned;
  const int pages = static_cast<int>(rounded_up(static_cast<std::size_t>(planned.pages)));
  const HeadShape shape{s.heads, s.kv_heads, s.head_width};
  const std::size_t floats = attention_scratch_floats(step_.rows, shape, pages);
  make_room(scratch_, static_cast<std::int64_t>(floats * sizeof(float)));
  auto* sums = data<float2>(scratch_);
  history_.scratch = {reinterpret_cast<float*>(sums + std::int64_t{step_.rows} * s.heads * pages),
                      sums, pages};

  // Where changes lie differs from step to step, which a recording does not know.
  const bool draws_last = !draws.empty() && changes.empty();
  const StepGraphs::Key key{step_.rows, history_.room.shared, history_.room.single,
                            pages,      draws_last,           history_.pruned};
  check(graphs_.run(key, stream(), [&] {
    check(launch_step(weights_, buffers_, step_, history_, stream()));
    if (draws_last) check(draw(draw_, stream()));
  }));
  if (!draws.empty() && !draws_last) check(draw(draw_, stream()));
  there_ = std::move(left);
}

void Generator::generate(std::span<const Forward::Row> rows) {
  std::vector<PlanRow> plan_rows;
  for (const Forward::Row& row : rows) plan_rows.push_back({row.sequence, row.token});
  step(plan_rows, {}, {});
  const auto vocab = static_cast<std::size_t>(weights_.sizes.vocab);
  const std::size_t bytes = rows.size() * vocab * sizeof(float);
  std::byte* logits = from_device_.room(bytes);
  if (logits == nullptr) throw ForwardError(cudaErrorMemoryAllocation);
  check(cudaMemcpyAsync(logits, buffers_.logits, bytes, cudaMemcpyDeviceToHost, stream()));
  check(cudaStreamSynchronize(stream()));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::memcpy(rows[i].logits.data(), logits + i * vocab * sizeof(float), vocab * sizeof(float));
  }
}

void Generator::launch(std::span<const Forward::AheadRow> rows) {
  std::vector<PlanRow> plan_rows;
  std::vector<DrawRow> draws;
  std::vector<LogitChange> changes;
  const auto drawn_at = static_cast<std::int32_t>(next_slot_) * kMaxBatch;
  for (const auto& [sequence, item] : rows) {
    const bool known = item->token != kNewest;
    plan_rows.push_back({sequence, known ? item->token : given_as(sequence->drawn_at(0))});
    draws.push_back(draw_row(*sequence, *item, weights_.sizes.vocab, changes));
    draws.back().drawn_at = drawn_at + static_cast<int>(draws.size()) - 1;
  }
  step(plan_rows, draws, changes);
  check(cudaEventRecord(slots_[next_slot_].done, stream()));
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i].sequence->drew(draws[i].drawn_at);
  launched_.push_back({next_slot_, static_cast<int>(rows.size())});
  next_slot_ = (next_slot_ + 1) % slots_.size();
}

std::vector<TokenId> Generator::hear() {
  const Launched step = launched_.front();
  launched_.pop_front();
  if (const cudaError_t error = cudaEventSynchronize(slots_[step.slot].done);
      error != cudaSuccess) {
    launched_.clear();
    throw ForwardError(error);
  }
  const std::int32_t* tokens = heard_tokens() + step.slot * kMaxBatch;
  return {tokens, tokens + step.rows};
}

}  // namespace kvfs::model::cuda

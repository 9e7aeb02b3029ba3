#include "engine/model/cuda/observer.h"

#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <utility>

#include "engine/model/cuda/cuda_model.h"
#include "engine/prune/methods.h"

namespace kvfs::model::cuda {
namespace {

void check(cudaError_t error) {
  if (error != cudaSuccess) throw ForwardError(error);
}
cudaStream_t stream() { return c10::cuda::getCurrentCUDAStream(); }

class DeviceObserver final : public Observer {
 public:
  DeviceObserver(const ObservedModel& model, const DeviceSequence& sequence, prune::Plan plan,
                 at::Device device, WatchedRead read, Guard guard)
      : model_(model),
        sequence_(sequence),
        plan_(std::move(plan)),
        device_(device),
        read_(std::move(read)),
        guard_(std::move(guard)) {}

  std::int64_t tokens_read() const override { return tokens_read_; }

  Result<bool> read() override {
    if (pass_ == plan_.passes.size()) return true;
    const prune::Pass& pass = plan_.passes[pass_];
    if (at_ == 0) {
      KVFS_TRY(guard_([&]() -> Status {
        begin_pass(pass);
        return {};
      }));
    }
    const std::size_t count =
        std::min<std::size_t>(pass.tokens.size() - at_,
                              static_cast<std::size_t>(kGridRows - again_->next_pos() % kGridRows));
    KVFS_TRY(read_(*again_, std::span(pass.tokens).subspan(at_, count), watch_));
    at_ += count;
    tokens_read_ += static_cast<std::int64_t>(count);
    if (at_ == pass.tokens.size()) {
      ++pass_;
      at_ = 0;
    }
    return pass_ == plan_.passes.size();
  }

  Result<prune::Observation> take() override {
    if (pass_ != plan_.passes.size()) {
      return fail(ErrorCode::kInternal, "look at what attention sees",
                  "not all tokens of the plan were read");
    }
    prune::Observation seen(static_cast<std::size_t>(model_.layers()));
    for (std::size_t layer = 0; layer < seen.size(); ++layer)
      seen[layer].positions = sequence_.positions(static_cast<int>(layer));
    KVFS_TRY(guard_([&]() -> Status {
      fill(seen);
      return {};
    }));
    again_.reset();
    weights_ = origin_ = first_ = second_ = at::Tensor();
    return seen;
  }

 private:
  at::Tensor make(std::int64_t elements, at::ScalarType type = at::kFloat) const {
    return at::zeros({elements}, at::TensorOptions().dtype(type).device(device_));
  }
  std::int64_t sides() const { return std::int64_t{model_.layers()} * model_.heads.heads; }

  void begin_pass(const prune::Pass& pass) {
    again_ = sequence_.fork();
    again_->truncate(pass.first);
    if (pass_ == 0) make_room();
    const bool highest = plan_.needs == prune::Needs::kReconstruction;
    watch_.rule = {.highest = highest,
                   .sinks = std::min(prune::kSinks, pass.begin),
                   .begin = pass.begin,
                   .end = pass.end,
                   .after = pass.first};
  }
  void make_room() {
    watch_.pages = sequence_.pages();
    if (plan_.needs != prune::Needs::kExpectedQueries) {
      weights_ = make(sides() * watch_.pages * kBlockTokens);
      watch_.weights = weights_.data_ptr<float>();
      return;
    }
    const std::int64_t width = model_.heads.width;
    origin_ = make(sides() * width);
    first_ = make(sides() * width, at::kDouble);
    second_ = make(sides() * width * width, at::kDouble);
    watch_.queries = {origin_.data_ptr<float>(), first_.data_ptr<double>(),
                      second_.data_ptr<double>()};
  }

  void fill(prune::Observation& seen) const {
    switch (plan_.needs) {
      case prune::Needs::kNothing:
        return;
      case prune::Needs::kKeyNorms:
        for (int layer = 0; layer < model_.layers(); ++layer)
          take(norms(layer, false), seen[static_cast<std::size_t>(layer)].positions,
               seen[static_cast<std::size_t>(layer)].scores);
        return;
      case prune::Needs::kExpectedQueries:
        return expect(seen);
      default:
        return take_weights(seen);
    }
  }

  // The addresses of the sequence's pages, on the device.
  const at::Tensor& table() const {
    if (!table_.defined()) {
      std::vector<void*> pages;
      for (int i = 0; i < sequence_.pages(); ++i) pages.push_back(sequence_.page_address(i));
      const auto bytes = static_cast<std::int64_t>(pages.size() * sizeof(void*));
      table_ = make(bytes, at::kByte);
      check(cudaMemcpyAsync(table_.data_ptr(), pages.data(), pages.size() * sizeof(void*),
                            cudaMemcpyHostToDevice, stream()));
    }
    return table_;
  }
  KvPlace entries_of(int layer) const {
    const PageShape& shape = sequence_.shape();
    return {static_cast<void* const*>(table().data_ptr()), shape.offset(layer, 0),
            shape.offset(layer, 1)};
  }

  // [pages][kv_heads][256]
  at::Tensor norms(int layer, bool of_values) const {
    at::Tensor out = make(std::int64_t{sequence_.pages()} * model_.heads.kv_heads * kBlockTokens);
    const auto launch =
        model_.dtype == DType::kF32 ? entry_norms<float> : entry_norms<__nv_bfloat16>;
    check(launch(of_values, sequence_.pages(), model_.heads, entries_of(layer),
                 out.data_ptr<float>(), stream()));
    return out;
  }

  void expect(prune::Observation& seen) const {
    const HeadShape& shape = model_.heads;
    const std::int64_t vectors = std::int64_t{shape.heads} * shape.width;
    const at::Tensor matrix = make(vectors * shape.width);
    const at::Tensor vector = make(vectors);
    const at::Tensor turns = make(shape.width, at::kDouble);
    const ExpectedQueries queries{matrix.data_ptr<float>(), vector.data_ptr<float>(),
                                  turns.data_ptr<double>()};
    const at::Tensor exponents = make(std::int64_t{sequence_.pages()} * shape.heads * kBlockTokens);
    const auto launch =
        model_.dtype == DType::kF32 ? expected_exponents<float> : expected_exponents<__nv_bfloat16>;
    const Position end = sequence_.next_pos();
    for (int layer = 0; layer < model_.layers(); ++layer) {
      const auto index = static_cast<std::size_t>(layer);
      check(expect_queries(watch_.queries_of(layer, shape), end - prune::kSinks, shape,
                           model_.scale, model_.turnings[index], end, queries, stream()));
      check(launch(queries, sequence_.pages(), shape, entries_of(layer),
                   exponents.data_ptr<float>(), stream()));
      take(exponents, seen[index].positions, seen[index].scores);
      take(norms(layer, true), seen[index].positions, seen[index].value_norms);
    }
  }

  void take_weights(prune::Observation& seen) const {
    const std::int64_t of_layer = std::int64_t{watch_.pages} * model_.heads.heads * kBlockTokens;
    for (std::size_t layer = 0; layer < seen.size(); ++layer) {
      prune::LayerObservation& to = seen[layer];
      take(weights_.narrow(0, static_cast<std::int64_t>(layer) * of_layer, of_layer), to.positions,
           to.scores);
      if (plan_.needs != prune::Needs::kAllQueries) continue;
      const std::size_t group = to.scores.size() / to.positions.size();
      for (std::size_t head = 0; head < to.scores.size(); ++head) {
        for (std::size_t i = 0; i < to.scores[head].size(); ++i)
          to.scores[head][i] /= could_see(layer, to.positions[head / group][i]);
      }
    }
  }
  // Queries that a mean is taken over.
  float could_see(std::size_t layer, Position pos) const {
    const int window = model_.turnable.windows[layer];
    const Position later = sequence_.next_pos() - pos;
    return static_cast<float>(window > 0 ? std::min<Position>(window, later) : later);
  }

  // Numbers [pages][heads][256 slots] on the device → those of the entries, by head.
  void take(const at::Tensor& numbers, const std::vector<std::vector<Position>>& positions,
            prune::HeadScores& to) const {
    const at::Tensor host = numbers.cpu();
    const float* all = host.const_data_ptr<float>();
    const auto heads = static_cast<std::size_t>(host.numel()) /
                       static_cast<std::size_t>(sequence_.pages() * kBlockTokens);
    const std::size_t group = heads / positions.size();
    for (std::size_t head = 0; head < heads; ++head) {
      std::vector<float>& scores = to.emplace_back();
      for (const Position pos : positions[head / group]) {
        const auto page = static_cast<std::size_t>(pos / kBlockTokens);
        const auto slot = static_cast<std::size_t>(pos % kBlockTokens);
        scores.push_back(all[(page * heads + head) * kBlockTokens + slot]);
      }
    }
  }

  const ObservedModel& model_;
  const DeviceSequence& sequence_;
  const prune::Plan plan_;
  const at::Device device_;
  const WatchedRead read_;
  const Guard guard_;
  std::size_t pass_ = 0;
  std::size_t at_ = 0;  // tokens of it that were read
  std::int64_t tokens_read_ = 0;
  std::unique_ptr<DeviceSequence> again_;
  Watch watch_;
  at::Tensor weights_, origin_, first_, second_;  // what the watch points to
  mutable at::Tensor table_;
};

}  // namespace

Result<std::unique_ptr<Observer>> make_observer(const ObservedModel& model,
                                                const DeviceSequence& sequence, prune::Plan plan,
                                                at::Device device, WatchedRead read, Guard guard) {
  KVFS_TRY(prune::check_plan(plan, sequence.next_pos()));
  return std::make_unique<DeviceObserver>(model, sequence, std::move(plan), device, std::move(read),
                                          std::move(guard));
}

}  // namespace kvfs::model::cuda

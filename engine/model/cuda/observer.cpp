#include "engine/model/cuda/observer.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "engine/model/cuda/cuda_model.h"
#include "engine/model/dequantize.h"

namespace kvfs::model::cuda {
namespace {

float norm_of(ByteSpan row, DType dtype) {
  double sum = 0;
  for (std::size_t i = 0; i < row.size() / size_of(dtype); ++i) {
    float x = 0;
    if (dtype == DType::kF32) {
      std::memcpy(&x, &row[i * 4], sizeof x);
    } else {
      std::uint16_t bits = 0;
      std::memcpy(&bits, &row[i * 2], sizeof bits);
      x = bf16_to_float(bits);
    }
    sum += static_cast<double>(x) * x;
  }
  return static_cast<float>(std::sqrt(sum));
}

class DeviceObserver final : public Observer {
 public:
  DeviceObserver(ObservedModel model, const DeviceSequence& sequence, prune::Plan plan,
                 at::Device device, WatchedRead read, Guard guard)
      : model_(std::move(model)),
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
    const Watch watch{weights_.data_ptr<float>(), pages_};
    KVFS_TRY(read_(*again_, std::span(pass.tokens).subspan(at_, count), watch));
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
    prune::Observation seen(static_cast<std::size_t>(model_.layers));
    for (int layer = 0; layer < model_.layers; ++layer)
      seen[static_cast<std::size_t>(layer)].positions = sequence_.positions(layer);
    KVFS_TRY(guard_([&]() -> Status {
      if (plan_.needs == prune::Needs::kKeyNorms) return measure_keys(seen);
      if (plan_.needs != prune::Needs::kNothing) take_weights(seen);
      return {};
    }));
    again_.reset();
    weights_ = at::Tensor();
    return seen;
  }

 private:
  void begin_pass(const prune::Pass& pass) {
    again_ = sequence_.fork();
    again_->truncate(pass.first);
    const int end = pass.first + static_cast<int>(pass.tokens.size());
    pages_ = (end + kBlockTokens - 1) / kBlockTokens;
    weights_ = at::zeros({model_.layers, pages_, model_.heads, kBlockTokens},
                         at::TensorOptions().dtype(at::kFloat).device(device_));
  }

  Status measure_keys(prune::Observation& to) const {
    for (std::size_t layer = 0; layer < to.size(); ++layer) {
      prune::HeadScores& norms = to[layer].scores;
      norms.resize(static_cast<std::size_t>(model_.kv_heads));
      for (int page = 0; page < sequence_.pages(); ++page) {
        KVFS_ASSIGN(const auto pieces, sequence_.read(static_cast<std::uint16_t>(layer), page));
        for (const KvPiece& piece : pieces) {
          const std::size_t row = piece.key.size() / piece.head_count / piece.positions.size();
          for (std::size_t i = 0; i * row < piece.key.size(); ++i) {
            norms[piece.head_begin + i / piece.positions.size()].push_back(
                norm_of(ByteSpan(piece.key).subspan(i * row, row), model_.dtype));
          }
        }
      }
    }
    return {};
  }

  void take_weights(prune::Observation& to) const {
    const at::Tensor host = weights_.cpu();
    const auto heads = static_cast<std::size_t>(model_.heads);
    const std::size_t group = heads / static_cast<std::size_t>(model_.kv_heads);
    for (std::size_t layer = 0; layer < to.size(); ++layer) {
      const float* of_layer = host.const_data_ptr<float>() +
                              layer * static_cast<std::size_t>(pages_) * heads * kBlockTokens;
      for (std::size_t head = 0; head < heads; ++head) {
        std::vector<float>& scores = to[layer].scores.emplace_back();
        for (const Position pos : to[layer].positions[head / group]) {
          const auto page = static_cast<std::size_t>(pos / kBlockTokens);
          const auto slot = static_cast<std::size_t>(pos % kBlockTokens);
          scores.push_back(of_layer[(page * heads + head) * kBlockTokens + slot] /
                           static_cast<float>(could_see(layer, pos)));
        }
      }
    }
  }
  // Queries that a mean is taken over.
  Position could_see(std::size_t layer, Position pos) const {
    if (plan_.needs != prune::Needs::kAllQueries) return 1;
    const Position later = sequence_.next_pos() - pos;
    return model_.windows[layer] > 0 ? std::min<Position>(model_.windows[layer], later) : later;
  }

  const ObservedModel model_;
  const DeviceSequence& sequence_;
  const prune::Plan plan_;
  const at::Device device_;
  const WatchedRead read_;
  const Guard guard_;
  std::size_t pass_ = 0;
  std::size_t at_ = 0;  // tokens of it that were read
  std::int64_t tokens_read_ = 0;
  std::unique_ptr<DeviceSequence> again_;
  int pages_ = 0;
  at::Tensor weights_;  // Watch's
};

}  // namespace

Result<std::unique_ptr<Observer>> make_observer(const ObservedModel& model,
                                                const DeviceSequence& sequence, prune::Plan plan,
                                                at::Device device, WatchedRead read, Guard guard) {
  const std::string what = "look at what attention sees";
  if (plan.needs == prune::Needs::kExpectedQueries || plan.needs == prune::Needs::kReconstruction) {
    return fail(ErrorCode::kUnsupported, what,
                "expected and kvzip need more of it than the CUDA kernels keep",
                "take another method, such as snapkv, or load the model on the CPU");
  }
  for (const prune::Pass& pass : plan.passes) {
    const Position end = pass.first + static_cast<Position>(pass.tokens.size());
    const bool one = plan.needs != prune::Needs::kNewestQuery || pass.tokens.size() == 1;
    const bool all = plan.needs != prune::Needs::kAllQueries || pass.first == 0;
    if (pass.first < 0 || pass.tokens.empty() || end != sequence.next_pos() || !one || !all) {
      return fail(ErrorCode::kInvalid, what,
                  "the tokens to read again are not those of a sequence of " +
                      std::to_string(sequence.next_pos()) + " tokens");
    }
  }
  if (plan.needs >= prune::Needs::kNewestQuery && plan.passes.empty())
    return fail(ErrorCode::kInvalid, what, "no tokens were given to read again");
  return std::make_unique<DeviceObserver>(model, sequence, std::move(plan), device, std::move(read),
                                          std::move(guard));
}

}  // namespace kvfs::model::cuda

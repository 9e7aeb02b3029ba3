#include "engine/model/cuda/forward.h"

#include <utility>

#include "engine/model/cuda/generator.h"
#include "engine/model/cuda/reader.h"

namespace kvfs::model::cuda {
namespace {

class FastForward final : public Forward {
 public:
  FastForward(const LlamaSizes& sizes, Weights weights, const PageShape& pages, at::Device device)
      : sizes_(sizes),
        weights_(std::move(weights)),
        reader_(sizes_, weights_, pages, device),
        generator_(sizes_, weights_, device) {}
  void read(const DeviceSequence& sequence, std::span<const TokenId> tokens,
            std::span<float> logits, const Watch* watch) override {
    reader_.read(sequence, tokens, logits, watch);
  }
  int most_grids() const override { return Reader::kMostGrids; }
  Turning turning(int) const override { return reader_.turning(); }
  void generate(std::span<const Row> rows) override { generator_.generate(rows); }
  int most_ahead() const override { return kMostAhead; }
  void launch(std::span<const AheadRow> rows) override { generator_.launch(rows); }
  std::vector<TokenId> hear() override { return generator_.hear(); }

 private:
  const LlamaSizes sizes_;
  const Weights weights_;
  Reader reader_;
  Generator generator_;
};

}  // namespace

std::unique_ptr<Forward> make_fast_forward(const LlamaSizes& sizes, Weights weights,
                                           const PageShape& pages, at::Device device) {
  return std::make_unique<FastForward>(sizes, std::move(weights), pages, device);
}

std::uint64_t fast_forward_memory(const LlamaSizes& sizes) { return Reader::memory(sizes); }

}  // namespace kvfs::model::cuda

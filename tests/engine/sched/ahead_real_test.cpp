// Steps launched ahead on the real model: what a refresh prunes while it generates is what it would
// be one step at a time.
#include <tuple>

#include "tests/engine/sched/ahead_model.h"
#include "tests/engine/sched/real_house.h"

namespace kvfs::sched::test {
namespace {

class AheadOnTheRealModel : public RealHouse {};

TEST_F(AheadOnTheRealModel, ARefreshWaitsForWhatIsUnderWay) {
  const auto say = [&] {
    ParamMap params = raw(45);
    params["prune"] = "pyramid window=8 bottom=64 top=24 refresh=10 start=100";
    const StateId state =
        house_->make("s" + std::to_string(house_->store().jobs()->size()), params);
    std::string story;
    for (int i = 0; i < 12; ++i) {
      story += " Night " + std::to_string(i) + ": the keeper saw " + std::to_string(i * 37 % 11) +
               " stars fall, and wrote it down.";
    }
    const std::string job =
        house_->submit(house_->submission(state, store::JobKind::kContinue, story));
    const std::string text = house_->wait(state, job).text;
    std::vector<std::uint32_t> steps;
    const auto jobs = house_->scheduler().jobs(state);
    for (const Refresh& refresh : jobs.front().refreshes) steps.push_back(refresh.step);
    return std::tuple(text, steps, house_->files(state));
  };
  const auto one_by_one = say();
  EXPECT_EQ(std::get<1>(one_by_one), (std::vector<std::uint32_t>{10, 20, 30, 40}));

  std::atomic<int> launched = 0;
  house_->options.load =
      [&](const model::ModelCard& card,
          const model::LoadOptions& options) -> Result<std::unique_ptr<model::Model>> {
    KVFS_ASSIGN(auto model, model::load_model(card, options));
    return std::make_unique<AheadModel>(std::move(model), launched);
  };
  house_->reopen();
  EXPECT_EQ(say(), one_by_one);
  EXPECT_EQ(launched, 45);
  house_->options.load = nullptr;
  house_->reopen();
}

}  // namespace
}  // namespace kvfs::sched::test

#include "engine/sched/comparison.h"

#include <algorithm>
#include <utility>

#include "engine/sched/prompt.h"
#include "engine/sched/pruning.h"
#include "engine/sched/submission.h"

namespace kvfs::sched {
namespace {

constexpr auto kTellEvery = std::chrono::milliseconds(100);

Status check_overrides(const ParamMap& overrides) {
  for (const char* name : {"prune", "format", "logprobs", "codec"}) {
    const auto given = overrides.find(name);
    if (given == overrides.end() || given->second.empty()) continue;
    return fail(
        ErrorCode::kInvalid, "compare", std::string(name) + " is no parameter of it",
        std::string(name) == "prune" ? "name the methods: --methods full,pyramid" : "leave it out");
  }
  return {};
}

// Greedy unless asked otherwise, and full is full whatever the state's params/prune says.
ParamMap all_overrides(const ParamMap& given) {
  ParamMap out = given;
  if (out["temperature"].empty()) out["temperature"] = "0";
  out["prune"] = "off";
  out["format"] = "text";
  out["logprobs"] = "0";
  return out;
}

}  // namespace

Result<ComparisonSetup> examine_comparison(store::Store& store, Catalog& catalog,
                                           HistoryCache& histories, KnownTexts& known,
                                           const ComparisonRequest& request) {
  ComparisonSetup out;
  KVFS_TRY(check_overrides(request.overrides));
  if (!request.methods.empty()) {
    KVFS_ASSIGN(out.methods, read_methods(request.methods));
  }
  // What a chat will say is not known yet: that there is room for a word of it can be.
  const Submission ask{.state = request.state,
                       .kind = store::JobKind::kAsk,
                       .prompt = request.prompt.value_or("?"),
                       .overrides = all_overrides(request.overrides)};
  KVFS_ASSIGN(const store::JobRecord record, examine(store, catalog, histories, known, ask, false));
  KVFS_ASSIGN(out.params, resolve_params(record.params));
  out.params.sampling.seed = record.seed;
  KVFS_ASSIGN(out.card, catalog.card(out.params.model));
  KVFS_ASSIGN(const auto state, store.state(request.state));
  out.uid = state.uid;
  KVFS_ASSIGN(out.base, histories.get(state.version));
  for (const BlockId id : out.base->version.blocks) {
    auto pin = store.pin(id);
    if (!pin) {
      return fail(ErrorCode::kAgain, "compare", "the state was changed at this moment",
                  "try again");
    }
    out.pins.push_back(*std::move(pin));
  }
  out.prunes_before = request.when == PruneWhen::kBefore ||
                      (request.when == PruneWhen::kAuto && !out.base->ids.empty());
  return out;
}

ComparisonRun::ComparisonRun(ComparisonSetup setup, std::shared_ptr<ComparisonLink> link,
                             KnownTexts& known)
    : setup_(std::move(setup)),
      link_(std::move(link)),
      known_(known),
      ids_(setup_.base->ids),
      generated_(generated_in(*setup_.base)) {}

ComparisonRun::~ComparisonRun() {
  runs_.clear();
  turn_.reset();
  base_.reset();
  if (on_ != nullptr) --on_->jobs;
}

void ComparisonRun::start(LoadedModel& on) {
  on_ = &on;
  ++on_->jobs;
  began_ = Clock::now();
  on_->residency.want({.history = setup_.base});
}

bool ComparisonRun::leaves() {
  over_ |= link_->left();
  return over_;
}

MethodRun::Work ComparisonRun::take_work() { return std::exchange(work_, {}); }

void ComparisonRun::end(std::optional<Error> error) {
  if (over_) return;
  over_ = true;
  link_->tell(ComparisonOver{std::move(error)});
}

bool ComparisonRun::step() {
  if (over_) return false;
  bool progress = false;
  if (leaves()) return true;
  if (const Status done = advance(progress); !done) {
    end(done.error());
    return true;
  }
  return progress || over_;
}

Status ComparisonRun::advance(bool& progress) {
  if (!base_) {
    KVFS_ASSIGN(progress, arrive());
    return {};
  }
  if (!turn_) return next_turn(progress);
  progress = true;
  return work_on();
}

Result<bool> ComparisonRun::arrive() {
  KVFS_ASSIGN(base_, on_->residency.fork({.history = setup_.base}));
  if (!base_) {
    tell_progress({.doing = "restoring", .words = {}, .done = 0, .of = ids_.size()});
    return false;
  }
  setup_.pins.clear();
  restore_seconds_ = std::chrono::duration<double>(Clock::now() - began_).count();
  idle_since_ = Clock::now();
  return true;
}

Status ComparisonRun::next_turn(bool& progress) {
  const bool last = link_->ended();  // looked at first: what was said before it is there
  const auto prompt = link_->take();
  if (!prompt) {
    if (last) {
      end(std::nullopt);
    } else if (Clock::now() - idle_since_ > kComparisonPatience) {
      return fail(ErrorCode::kCanceled, "compare", "no turn came for a quarter of an hour",
                  "begin a new comparison");
    }
    return {};
  }
  progress = true;
  auto turn = make_turn(*prompt);
  if (!turn) {
    idle_since_ = Clock::now();
    link_->tell(ComparisonRefused{turn.error()});
    return {};
  }
  return begin_turn(*std::move(turn));
}

Result<ComparedTurn> ComparisonRun::make_turn(const std::string& text) const {
  KVFS_TRY(check_text(text));
  History history;  // what a prompt is rendered against
  history.id = setup_.base->id;
  history.ids = ids_;
  history.version.next_pos =
      setup_.base->version.next_pos + static_cast<Position>(ids_.size() - setup_.base->ids.size());
  auto prompt = prompt_tokens(*setup_.card, setup_.params, store::JobKind::kAsk, history, text,
                              known_, setup_.uid);
  if (!prompt) return fail(prompt.error());
  return ComparedTurn{.index = turns_,
                      .base = setup_.base,
                      .history = ids_,
                      .prompt = std::move(prompt->ids),
                      .generated = generated_,
                      .prunes_before = setup_.prunes_before};
}

Status ComparisonRun::choose_methods() {
  if (setup_.methods.empty()) {
    const std::size_t tokens =
        turn_->history.size() + (setup_.prunes_before ? 0 : turn_->prompt.size());
    KVFS_ASSIGN(setup_.methods, read_methods(default_methods(tokens)));
  }
  for (const ComparedMethod& method : setup_.methods) {
    runs_.emplace_back(*on_, setup_.params, method, on_->model->fork(*base_));
  }
  return {};
}

Status ComparisonRun::begin_turn(ComparedTurn turn) {
  turn_ = std::move(turn);
  if (runs_.empty()) KVFS_TRY(choose_methods());
  ComparisonTurn told{.index = turns_,
                      .state_tokens = turn_->history.size(),
                      .prompt_tokens = turn_->prompt.size(),
                      .methods = {},
                      .prunes_before = turn_->prunes_before,
                      .model = on_->model->info().name,
                      .kernel_class = on_->model->info().kernel_class,
                      .restore_seconds = std::exchange(restore_seconds_, 0)};
  for (const ComparedMethod& method : setup_.methods) told.methods.push_back(method.words);
  link_->tell(std::move(told));
  at_ = 0;
  runs_[at_].begin(*turn_, at_);
  return {};
}

Status ComparisonRun::work_on() {
  MethodRun& run = runs_[at_];
  const bool done = run.step();
  const auto work = run.take_work();
  work_.prefilled += work.prefilled;
  work_.decoded += work.decoded;
  if (!done) {
    tell_progress(run.progress());
    return {};
  }
  MethodResult result = run.take_result();
  if (at_ == 0 && result.error) return fail(*result.error);  // nothing to compare with
  link_->tell(std::move(result));
  if (link_->ended()) run.release();
  if (++at_ < runs_.size()) {
    runs_[at_].begin(*turn_, at_);
  } else {
    turn_over();
  }
  return {};
}

void ComparisonRun::turn_over() {
  ids_.insert(ids_.end(), turn_->prompt.begin(), turn_->prompt.end());
  ids_.insert(ids_.end(), turn_->reply.begin(), turn_->reply.end());
  generated_ += turn_->reply.size();
  turn_.reset();
  idle_since_ = Clock::now();
  link_->tell(ComparisonTurnOver{turns_++});
}

void ComparisonRun::tell_progress(ComparisonProgress progress) {
  const auto now = Clock::now();
  if (now - told_ < kTellEvery) return;
  told_ = now;
  link_->tell(std::move(progress));
}

}  // namespace kvfs::sched

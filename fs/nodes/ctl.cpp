#include "fs/nodes/ctl.h"

#include <array>
#include <charconv>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "engine/sched/rollback.h"
#include "fs/modes.h"

namespace kvfs::fs {
namespace {

constexpr std::size_t kMaxLine = 4096;
constexpr char kSubject[] = "ctl";

tl::unexpected<Error> wrong(const std::string& line, std::string why, std::string way_out) {
  return fail(ErrorCode::kInvalid, "ctl \"" + line.substr(0, 80) + "\"", std::move(why),
              std::move(way_out));
}

void step(Context& context, StateId state, const std::string& argument, Done done) {
  std::int32_t tokens = 0;
  const char* end = argument.data() + argument.size();
  const auto parsed = std::from_chars(argument.data(), end, tokens);
  if (parsed.ec != std::errc{} || parsed.ptr != end || tokens < 1) {
    return done(wrong("step " + argument, "it wants a number of tokens", "write step 32"));
  }
  context.scheduler.submit_async({.state = state,
                                  .kind = store::JobKind::kStep,
                                  .name = {},
                                  .prompt = {},
                                  .overrides = {},
                                  .steps = tokens},
                                 [done = std::move(done)](const Result<JobId>& id) {
                                   done(id ? Status() : Status(fail(id.error())));
                                 });
}

void prune(Context& context, StateId state, const std::string& argument, Done done) {
  context.scheduler.submit_async({.state = state,
                                  .kind = store::JobKind::kPrune,
                                  .name = {},
                                  .prompt = argument,
                                  .overrides = {}},
                                 [done = std::move(done)](const Result<JobId>& id) {
                                   done(id ? Status() : Status(fail(id.error())));
                                 });
}

void cancel(Context& context, StateId state, const std::string& argument, Done done) {
  if (argument.empty()) return done(wrong("cancel", "it wants a job's name", "see status"));
  context.chores.post([&context, state, argument, done = std::move(done)] {
    done(context.scheduler.cancel(state, argument));
  });
}

// It waits for the disk. The kernel has heard of the older version when it is answered.
void roll_back(Context& context, StateId state, const std::string& argument, Done done) {
  context.chores.post([&context, state, argument, done = std::move(done)] {
    done(sched::rollback_word(context.store, context.scheduler, context.catalog, state, argument));
  });
}

template <bool kPinned>
void pin(Context& context, StateId state, const std::string& argument, Done done) {
  if (!argument.empty()) return done(wrong(argument, "pin and unpin stand alone", "write pin"));
  sched::set_pinned(context.store, state, kPinned, std::move(done));
}

struct Command {
  std::string_view word;
  void (*run)(Context&, StateId, const std::string&, Done);
};
constexpr std::array kCommands = {
    Command{"step", step},          Command{"cancel", cancel}, Command{"prune", prune},
    Command{"rollback", roll_back}, Command{"pin", pin<true>}, Command{"unpin", pin<false>},
};

std::string trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r";
  const auto first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(kSpace) - first + 1));
}

void run_line(Context& context, StateId state, std::string_view raw, Done done) {
  const std::string line = trimmed(raw);
  if (line.empty()) return done({});
  Done noted = [alive = context.alive(), state, done = std::move(done)](const Status& status) {
    if (status) {
      alive->refusals.clear(state, kSubject);
    } else {
      alive->refusals.note(state, kSubject, status.error());
    }
    done(status);
  };
  const auto space = std::min(line.find_first_of(" \t"), line.size());
  for (const Command& command : kCommands) {
    if (command.word != std::string_view(line).substr(0, space)) continue;
    return command.run(context, state, trimmed(std::string_view(line).substr(space)),
                       std::move(noted));
  }
  noted(wrong(
      line, "there is no such command",
      "use step N, cancel JOB, prune METHOD k=v…, rollback N, rollback @SNAPSHOT, pin or unpin"));
}

// The lines of one write, one after the other. Owned by the callback of the line under way.
class Lines : public std::enable_shared_from_this<Lines> {
 public:
  struct Line {
    std::string text;
    std::size_t bytes = 0;  // of this write, its newline too
  };
  Lines(Context& context, StateId state, std::vector<Line> lines, std::size_t rest,
        Answer<std::size_t> done)
      : context_(context),
        state_(state),
        lines_(std::move(lines)),
        rest_(rest),
        done_(std::move(done)) {}

  void next() {
    if (at_ == lines_.size()) return done_(accepted_ + rest_);
    run_line(context_, state_, lines_[at_].text,
             [self = shared_from_this()](const Status& status) { self->answered(status); });
  }

 private:
  // Refused after others were accepted: a short write says how far it went, and what the writer
  // tries next is refused.
  void answered(const Status& status) {
    if (!status && accepted_ == 0) return done_(fail(status.error()));
    if (!status) return done_(accepted_);
    accepted_ += lines_[at_++].bytes;
    next();
  }

  Context& context_;
  const StateId state_;
  const std::vector<Line> lines_;
  const std::size_t rest_;
  const Answer<std::size_t> done_;
  std::size_t at_ = 0;
  std::size_t accepted_ = 0;
};

class CtlHandle : public Handle {
 public:
  CtlHandle(Context& context, StateId state) : context_(context), state_(state) {}

  PageCache page_cache() const override { return PageCache::kNone; }

  void read(std::uint64_t /*offset*/, std::size_t /*size*/,
            std::shared_ptr<ReadAnswer> answer) override {
    answer->data({});
  }

  void write(std::uint64_t /*offset*/, ByteSpan bytes, Answer<std::size_t> done) override {
    std::string_view text = as_text(bytes);
    std::vector<Lines::Line> lines;
    std::string begun = [&] {
      const std::lock_guard lock(mutex_);
      return std::exchange(begun_, {});
    }();
    for (auto end = text.find('\n'); end != std::string_view::npos; end = text.find('\n')) {
      lines.push_back({std::exchange(begun, {}) + std::string(text.substr(0, end)), end + 1});
      text.remove_prefix(end + 1);
    }
    begun += text;
    if (begun.size() > kMaxLine) {
      return done(fail(ErrorCode::kTooLarge, "ctl", "a line has at most 4096 bytes"));
    }
    // What is left after the last line counts once all lines before it were accepted.
    auto all = [this, begun = std::move(begun), whole = bytes.size(),
                done = std::move(done)](const Result<std::size_t>& accepted) {
      if (accepted && *accepted == whole) {
        const std::lock_guard lock(mutex_);
        begun_ = begun;
      }
      done(accepted);
    };
    std::make_shared<Lines>(context_, state_, std::move(lines), text.size(), std::move(all))
        ->next();
  }

  Status truncate(std::uint64_t /*size*/) override { return {}; }

  void flush(Done done) override {
    std::string line;
    {
      const std::lock_guard lock(mutex_);
      line = std::exchange(begun_, {});
    }
    run_line(context_, state_, line, std::move(done));
  }

 private:
  Context& context_;
  const StateId state_;
  std::mutex mutex_;   // guards begun_
  std::string begun_;  // a line without its newline
};

}  // namespace

Result<Attributes> Ctl::attributes() {
  KVFS_ASSIGN(const store::StateRecord record, context_.store.state(state_));
  return Attributes{.mode = file_mode(record, kReadWrite),
                    .uid = record.uid,
                    .gid = record.gid,
                    .size = 0,
                    .changed_ns = record.changed_ns};
}

Result<std::unique_ptr<Handle>> Ctl::open(int /*flags*/) {
  KVFS_TRY(context_.store.state(state_));
  return std::make_unique<CtlHandle>(context_, state_);
}

}  // namespace kvfs::fs

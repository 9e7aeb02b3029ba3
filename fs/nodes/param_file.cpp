#include "fs/nodes/param_file.h"

#include <fcntl.h>

#include <algorithm>
#include <mutex>
#include <utility>

#include "fs/modes.h"
#include "fs/nodes/root.h"
#include "fs/nodes/text_handle.h"

namespace kvfs::fs {
namespace {

constexpr std::size_t kMaxBytes = 65536;

std::string subject(std::string_view name) { return "params/" + std::string(name); }

// A state goes on with the model that made it.
std::string default_model(Context& context, const store::StateRecord& record) {
  const auto files = record.version ? context.versions.get(record.version) : nullptr;
  return files && *files ? (*files)->record().model : context.catalog.default_name();
}

// chat for a model that has a chat template, raw for one that has none.
std::string default_template(Context& context, const store::StateRecord& record) {
  const auto set = record.params.find("model");
  const auto card = context.catalog.card(set == record.params.end() ? default_model(context, record)
                                                                    : set->second);
  if (!card) return {};
  return (*card)->chat ? "chat" : "raw";
}

std::string text_of(Context& context, const store::StateRecord& record,
                    const sched::ParamSpec& spec) {
  const auto set = record.params.find(std::string(spec.name));
  if (set != record.params.end() && !set->second.empty()) return set->second + "\n";
  if (spec.name == "model") return default_model(context, record) + "\n";
  if (spec.name == "template") return default_template(context, record) + "\n";
  return std::string(spec.default_value) + "\n";
}

class ParamHandle : public Handle {
 public:
  ParamHandle(Context& context, StateId state, std::string name, std::string text, int flags)
      : context_(context),
        state_(state),
        name_(std::move(name)),
        appends_((flags & O_APPEND) != 0),
        emptied_((flags & O_TRUNC) != 0),
        text_(std::move(text)) {
    if (emptied_) text_.clear();
  }

  PageCache page_cache() const override { return PageCache::kNone; }

  void read(std::uint64_t offset, std::size_t size, std::shared_ptr<ReadAnswer> answer) override {
    const std::lock_guard lock(mutex_);
    answer->data(slice(text_, offset, size));
  }

  void write(std::uint64_t offset, ByteSpan bytes, Answer<std::size_t> done) override {
    {
      const std::lock_guard lock(mutex_);
      if (appends_) offset = text_.size();
      if (offset + bytes.size() > kMaxBytes) {
        return done(fail(ErrorCode::kTooLarge, subject(name_), "a value has at most 64 KiB"));
      }
      text_.resize(std::max<std::size_t>(text_.size(), offset + bytes.size()));
      text_.replace(offset, bytes.size(), as_text(bytes));
      written_ = true;
    }
    done(bytes.size());
  }

  Status truncate(std::uint64_t size) override {
    const std::lock_guard lock(mutex_);
    if (size > kMaxBytes) return fail(ErrorCode::kTooLarge, subject(name_), "over 64 KiB");
    text_.resize(size);
    emptied_ = emptied_ || size == 0;
    written_ = written_ || size != 0;
    return {};
  }

  // A shell that redirects into the file closes a copy of the descriptor before anything is
  // written: what was only emptied is not a value yet.
  void flush(Done done) override {
    std::string value;
    {
      const std::lock_guard lock(mutex_);
      if (!written_) return done({});
      written_ = false;
      emptied_ = false;
      value = text_;
    }
    set_param(context_, state_, name_, value, std::move(done));
  }

  void sync(Done done) override {
    flush([alive = context_.alive(), done = std::move(done)](const Status& status) {
      if (!status) return done(status);
      reach_disk(*alive, done);
    });
  }

  void release() override {  // `: > params/stop`
    const std::lock_guard lock(mutex_);
    if (emptied_ && !written_) set_param(context_, state_, name_, {}, [](const Status&) {});
  }

 private:
  Context& context_;
  const StateId state_;
  const std::string name_;
  const bool appends_;
  std::mutex mutex_;      // guards everything below
  bool emptied_;          // and nothing written since
  bool written_ = false;  // and not set yet
  std::string text_;
};

}  // namespace

ParamFile::ParamFile(Context& context, StateId state, std::size_t place)
    : File(ino_of(state, param_part(place))), context_(context), state_(state), place_(place) {}

Result<Attributes> ParamFile::attributes() {
  KVFS_ASSIGN(const store::StateRecord record, context_.store.state(state_));
  const std::string text = text_of(context_, record, sched::param_table()[place_]);
  return Attributes{.mode = file_mode(record, kReadWrite),
                    .uid = record.uid,
                    .gid = record.gid,
                    .size = text.size(),
                    .changed_ns = record.changed_ns};
}

void ParamFile::change(const Changes& changes, Done done) {
  if (!changes.size) return done({});
  if (*changes.size != 0) {
    return done(fail(ErrorCode::kInvalid, "truncating a parameter", "write the whole value"));
  }
  set_param(context_, state_, std::string(sched::param_table()[place_].name), {}, std::move(done));
}

Result<std::unique_ptr<Handle>> ParamFile::open(int flags) {
  std::string name(sched::param_table()[place_].name);
  KVFS_ASSIGN(std::string text, param_text(context_, state_, name));
  return std::make_unique<ParamHandle>(context_, state_, std::move(name), std::move(text), flags);
}

std::shared_ptr<ParamFile> param_file(Context& context, StateId state, std::string_view name) {
  const auto table = sched::param_table();
  const auto it = std::ranges::find(table, name, &sched::ParamSpec::name);
  if (it == table.end()) return nullptr;
  return std::make_shared<ParamFile>(context, state, static_cast<std::size_t>(it - table.begin()));
}

Result<std::string> param_text(Context& context, StateId state, std::string_view name) {
  const auto table = sched::param_table();
  const auto spec = std::ranges::find(table, name, &sched::ParamSpec::name);
  if (spec == table.end()) return no_such_file(name);
  KVFS_ASSIGN(const store::StateRecord record, context.store.state(state));
  return text_of(context, record, *spec);
}

Status known_param(Context& context, StateId state, const std::string& name) {
  if (sched::is_param(name)) return {};
  const auto refused = sched::check_param(name, {});
  const Error error =
      refused ? Error{ErrorCode::kInvalid, "parameter " + name, "unknown", {}} : refused.error();
  context.refusals.note(state, subject(name), error);
  return fail(error);
}

void set_param(Context& context, StateId state, const std::string& name, const std::string& value,
               Done done, std::int64_t changed_ns) {
  if (const Status known = known_param(context, state, name); !known) return done(known);
  if (name == "model") {
    const std::string model = value.substr(0, value.find_last_not_of(" \t\n") + 1);
    if (const auto card = context.catalog.card(model); !card) {
      context.refusals.note(state, subject(name), card.error());
      return done(fail(card.error()));
    }
  }
  // Of a copy that is under way the end of the copy is what counts.
  const auto staged = context.store.staged(state);
  const bool soon = staged && !staged->empty();
  sched::set_param(
      context.store, state, name, value,
      [alive = context.alive(), state, name, done = std::move(done)](const Status& status) {
        if (status) {
          alive->background_notifier.attributes(ino_of(state, StatePart::kDirectory));
          alive->refusals.clear(state, subject(name));
        } else {
          alive->refusals.note(state, subject(name), status.error());
        }
        done(status);
      },
      changed_ns, soon);
}

}  // namespace kvfs::fs

#include "fs/nodes/version_file.h"

#include <fcntl.h>

#include <algorithm>
#include <utility>

#include "engine/store/write_transaction.h"
#include "fs/modes.h"
#include "fs/nodes/text_handle.h"

namespace kvfs::fs {
namespace {

constexpr int kTries = 4;  // against a state that advances while it is looked at

bool writes(int flags) { return (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0; }

class ViewHandle : public Handle {
 public:
  ViewHandle(std::vector<store::BlockPin> pins, std::shared_ptr<store::FileView> view,
             VersionSource source)
      : pins_(std::move(pins)), view_(std::move(view)), source_(source) {}

  PageCache page_cache() const override { return PageCache::kKept; }
  std::optional<VersionSource> source() const override { return source_; }

  void read(std::uint64_t offset, std::size_t size, std::shared_ptr<ReadAnswer> answer) override {
    Bytes bytes(size);
    const Result<std::size_t> got = view_->read(offset, bytes);
    if (!got) return answer->fail(got.error());
    answer->data(ByteSpan(bytes).first(*got));
  }

 private:
  const std::vector<store::BlockPin> pins_;
  const std::shared_ptr<store::FileView> view_;  // shared by the handles of a version's file
  const VersionSource source_;
};

Attributes attributes_of(const store::StateRecord& record, std::uint64_t size) {
  return {.mode = file_mode(record, kReadWrite),
          .uid = record.uid,
          .gid = record.gid,
          .size = size,
          .changed_ns = record.advanced_ns};
}

}  // namespace

Result<CurrentVersion> current_version(Context& context, StateId state) {
  for (int i = 1;; ++i) {
    CurrentVersion now;
    KVFS_ASSIGN(now.record, context.store.state(state));
    if (!now.record.version) return now;
    auto files = context.versions.get(now.record.version);
    if (!files && i < kTries) continue;
    if (!files) return fail(files.error());
    if (!(*files)->empty()) now.files = *std::move(files);
    return now;
  }
}

VersionFile::VersionFile(Context& context, Ino ino, StateId state, const store::StateRecord& record,
                         VersionPart part, EntryPlace place, std::uint64_t size)
    : File(ino),
      context_(context),
      state_(state),
      version_(record.version),
      part_(part),
      place_(std::move(place)),
      born_(attributes_of(record, size)) {}

Result<Attributes> VersionFile::attributes() {
  Attributes out = born_;
  if (const auto record = context_.store.state(state_)) {
    const Attributes now = attributes_of(*record, born_.size);
    out.mode = now.mode;
    out.uid = now.uid;
    out.gid = now.gid;
  }
  return out;
}

std::string VersionFile::path() const {
  const auto directory = part_ >= VersionPart::kFirstLayer ? StatePart::kKv : StatePart::kDirectory;
  return staged_path(directory, place_.name);
}

std::shared_ptr<CopiedFile> VersionFile::copy() const {
  return staged_node(context_, state_, path(), place_);
}

bool VersionFile::fresh() {
  const auto record = context_.store.state(state_);
  return record && record->version == version_ && !context_.store.staged(state_, path());
}

Result<std::unique_ptr<Handle>> VersionFile::open(int flags) {
  if (writes(flags)) {
    const auto staged = copy();
    if (!staged) return fail(ErrorCode::kNotFound, "writing " + path(), "its copy has moved on");
    return staged->open_instead_of(ino(), flags);
  }
  KVFS_ASSIGN(const auto files, context_.versions.get(version_));
  KVFS_ASSIGN(auto pins, store::pin_blocks(context_.store, files->record()));
  // Pins keep blocks, not the version: one that was dropped before them may lack some.
  KVFS_TRY(context_.store.version(version_));
  KVFS_ASSIGN(auto view, files->view(part_));
  const VersionSource source{version_, part_, view->size()};
  return std::make_unique<ViewHandle>(std::move(pins), std::move(view), source);
}

void VersionFile::prepare(int flags, const Caller& caller, Done done) {
  if (!writes(flags) || copy()) return done({});
  stage_copy({.flags = flags, .mode = born_.mode & 0777, .caller = caller},
             (flags & O_TRUNC) != 0 ? 0 : born_.size, std::move(done));
}

void VersionFile::change(const Changes& changes, Done done) {
  if (changes.size) {
    if (const auto staged = copy()) return staged->change(changes, std::move(done));
    return stage_copy({.mode = born_.mode & 0777, .caller = {.uid = born_.uid, .gid = born_.gid}},
                      std::min(*changes.size, born_.size), std::move(done));
  }
  if (!changes.modified_ns) return done({});  // mode and owner are the state's
  context_.store.write_async(
      [id = state_, at = *changes.modified_ns](store::WriteTransaction& tx) -> Status {
        KVFS_ASSIGN(store::StateRecord record, tx.state(id));
        record.advanced_ns = at;
        return tx.update_state(id, record);
      },
      [alive = context_.alive(), state = state_, done = std::move(done)](const Status& status) {
        for (const NodePtr& node : alive->nodes.of(state)) {
          alive->background_notifier.attributes(node->ino());
        }
        done(status);
      });
}

// Answers kNotFound when it is done: the name stands for the copy from then on.
void VersionFile::stage_copy(const Creation& how, std::uint64_t keep, Done done) {
  std::optional<Beginning> from;
  if (keep != 0) from = Beginning{version_, part_, keep};
  stage(context_, state_, path(), new_node(how), from,
        [alive = context_.alive(), place = place_,
         done = std::move(done)](const Result<FileId>& staged) {
          if (!staged && staged.error().code != ErrorCode::kExists)
            return done(fail(staged.error()));
          alive->background_notifier.entry(place.directory, place.name);
          done(fail(ErrorCode::kNotFound, "writing a version's file", "a copy of it is staged"));
        });
}

Result<NodePtr> version_file(Context& context, StateId state, const CurrentVersion& now,
                             VersionPart part, EntryPlace place) {
  KVFS_ASSIGN(const std::uint64_t size, now.files->size(part));
  const auto number = ino_of(state, now.record.version, part);
  const Ino ino = number ? *number : context.inos.next();
  return std::make_shared<VersionFile>(context, ino, state, now.record, part, std::move(place),
                                       size);
}

}  // namespace kvfs::fs

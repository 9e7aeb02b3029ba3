#include "fs/nodes/copied_file.h"

#include <fcntl.h>

#include <mutex>
#include <utility>

#include "engine/store/write_transaction.h"
#include "fs/file_buffer.h"

namespace kvfs::fs {
namespace {

// Counts as writing from an open that may write, and from each write, until it is closed. A shell
// closes a copy of the descriptor before anything is written: that is no close yet.
class CopiedHandle : public Handle {
 public:
  // other: the inode it is opened as, where that is not its own.
  CopiedHandle(Context& context, StateId state, std::shared_ptr<FileBuffer> buffer, bool writes,
               std::optional<Ino> other)
      : context_(context), state_(state), buffer_(std::move(buffer)), other_(other) {
    if (writes) begin(false);
  }

  PageCache page_cache() const override { return other_ ? PageCache::kNone : PageCache::kUsual; }

  void read(std::uint64_t offset, std::size_t size, std::shared_ptr<ReadAnswer> answer) override {
    const auto bytes = buffer_->read(offset, size);
    if (!bytes) return answer->fail(bytes.error());
    answer->data(*bytes);
  }
  void write(std::uint64_t offset, ByteSpan bytes, Answer<std::size_t> done) override {
    begin(true);
    buffer_->write(offset, bytes, std::move(done));
  }
  Status truncate(std::uint64_t size) override {
    begin(true);
    return buffer_->resize(size);
  }
  void sync(Done done) override { buffer_->reach_disk(std::move(done)); }

  void flush(Done done) override {
    const bool wrote = end(false);
    buffer_->sync([wrote, buffer = buffer_, alive = context_.alive(), state = state_,
                   done = std::move(done)](const Status& status) {
      if (!status || !wrote) return done(status);
      alive->arrivals.arrived(*alive, state, done);
    });
  }
  void release() override {
    // The kernel counted what was written as that inode's.
    if (other_) context_.background_notifier.attributes(*other_);
    if (!end(true)) return;
    buffer_->sync([buffer = buffer_, alive = context_.alive(), state = state_](const Status&) {
      alive->arrivals.arrived(*alive, state, [](const Status&) {});
    });
  }

  void take(const VersionSource& source, std::uint64_t source_offset, std::uint64_t offset,
            std::uint64_t size, Answer<std::size_t> done) override {
    begin(true);
    const store::FileNode node = buffer_->node();
    const std::uint64_t end = std::min(source.size, source_offset + size);
    const bool goes_on =
        offset == 0 || (node.source == source.version && node.source_part == source.part &&
                        node.pieces == 0 && node.source_bytes == offset);
    if (source_offset != offset || node.size != offset || !goes_on || end <= offset) {
      return done(fail(ErrorCode::kUnsupported, "sharing a file", "only whole ones are shared"));
    }
    context_.store.write_soon(
        [id = buffer_->id(), source, end](store::WriteTransaction& tx) {
          return tx.set_source(id, source.version, source.part, end);
        },
        [alive = context_.alive(), buffer = buffer_, bytes = end - offset,
         done = std::move(done)](const Status& status) {
          const auto now = status ? alive->store.node(buffer->id()) : fail(status.error());
          if (!now) return done(fail(now.error()));
          buffer->replaced(*now);
          done(static_cast<std::size_t>(bytes));
        });
  }

 private:
  void begin(bool writes) {
    const std::lock_guard lock(mutex_);
    wrote_ = wrote_ || writes;
    if (!std::exchange(writing_, true)) buffer_->writer(1);
  }
  bool end(bool for_good) {
    const std::lock_guard lock(mutex_);
    if (!wrote_ && !for_good) return false;
    wrote_ = false;
    const bool was = std::exchange(writing_, false);
    if (was) buffer_->writer(-1);
    return was;
  }

  Context& context_;
  const StateId state_;
  const std::shared_ptr<FileBuffer> buffer_;  // shared with the file's other handles
  const std::optional<Ino> other_;
  std::mutex mutex_;  // guards everything below
  bool writing_ = false;
  bool wrote_ = false;
};

Result<std::unique_ptr<Handle>> open_copied(const CopiedFile& file, int flags,
                                            std::optional<Ino> other) {
  const bool writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0;
  Context& context = file.context();
  KVFS_ASSIGN(auto buffer, context.files.get(context, file.file()));
  if ((flags & O_TRUNC) != 0) KVFS_TRY(buffer->resize(0));
  return std::make_unique<CopiedHandle>(context, file.state(), std::move(buffer), writes, other);
}

}  // namespace

bool CopiedFile::fresh() {
  const auto node = context().store.node(file());
  return node && node->linked;
}

Result<std::unique_ptr<Handle>> CopiedFile::open(int flags) {
  return open_copied(*this, flags, std::nullopt);
}

Result<std::unique_ptr<Handle>> CopiedFile::open_instead_of(Ino other, int flags) {
  return open_copied(*this, flags, other);
}

std::string staged_path(StatePart directory, std::string_view name) {
  return (directory == StatePart::kKv ? "kv/" : "") + std::string(name);
}

std::shared_ptr<CopiedFile> staged_node(Context& context, StateId state, const std::string& path,
                                        EntryPlace place) {
  const auto entry = context.store.staged(state, path);
  if (!entry) return nullptr;
  return std::make_shared<CopiedFile>(context, entry->file, state, std::move(place));
}

void stage(Context& context, StateId state, const std::string& path, store::FileNode node,
           std::optional<Beginning> from, Answer<FileId> done) {
  const auto id = std::make_shared<FileId>();  // with the two callbacks
  context.store.write_soon(
      [place = store::FilePlace{state, path, true}, node = std::move(node), from,
       id](store::WriteTransaction& tx) -> Status {
        KVFS_ASSIGN(const store::StateRecord record, tx.state(place.directory));
        if (record.snapshot) {
          return fail(ErrorCode::kPermission, "writing " + place.name, "a snapshot is read-only",
                      "fork it");
        }
        KVFS_ASSIGN(*id, tx.create_node(place, node));
        if (!from) return {};
        return tx.set_source(*id, from->version, from->part, from->bytes);
      },
      [id, done = std::move(done)](const Status& status) {
        done(status ? Result<FileId>(*id) : fail(status.error()));
      });
}

void create_staged_file(Context& context, StateId state, const std::string& path, EntryPlace place,
                        const Creation& how, Answer<Created> done) {
  stage(context, state, path, new_node(how), std::nullopt,
        [alive = context.alive(), state, place = std::move(place), flags = how.flags & ~O_TRUNC,
         done = std::move(done)](const Result<FileId>& id) mutable {
          if (!id) return done(fail(id.error()));
          auto node = std::make_shared<CopiedFile>(*alive, *id, state, std::move(place));
          auto handle = node->open(flags);
          if (!handle) return done(fail(handle.error()));
          done(Created{std::move(node), *std::move(handle)});
        });
}

}  // namespace kvfs::fs

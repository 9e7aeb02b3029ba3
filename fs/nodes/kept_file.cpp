#include "fs/nodes/kept_file.h"

#include <fcntl.h>

#include <algorithm>
#include <mutex>
#include <utility>

#include "engine/store/write_transaction.h"
#include "fs/modes.h"
#include "fs/nodes/text_handle.h"

namespace kvfs::fs {
namespace {

constexpr std::size_t kMostBytes = std::size_t{64} << 20;
constexpr std::size_t kMostSoon = std::size_t{64} << 10;  // larger ones are on disk at once

class KeepingHandle : public Handle {
 public:
  KeepingHandle(Context& context, StateId state, store::FileArea area, std::string name,
                std::string text)
      : context_(context),
        state_(state),
        area_(area),
        name_(std::move(name)),
        text_(std::move(text)) {}

  PageCache page_cache() const override { return PageCache::kNone; }
  bool allows_copy_file_range() const override { return false; }

  void read(std::uint64_t offset, std::size_t size, std::shared_ptr<ReadAnswer> answer) override {
    const std::lock_guard lock(mutex_);
    answer->data(slice(text_, offset, size));
  }
  void write(std::uint64_t offset, ByteSpan bytes, Answer<std::size_t> done) override {
    {
      const std::lock_guard lock(mutex_);
      if (offset + bytes.size() > kMostBytes) {
        return done(fail(ErrorCode::kTooLarge, name_, "a copied reply has at most 64 MiB"));
      }
      text_.resize(std::max<std::size_t>(text_.size(), offset + bytes.size()));
      text_.replace(offset, bytes.size(), as_text(bytes));
      unkept_ = true;
    }
    done(bytes.size());
  }
  Status truncate(std::uint64_t size) override {
    const std::lock_guard lock(mutex_);
    if (size > kMostBytes) return fail(ErrorCode::kTooLarge, name_, "at most 64 MiB");
    text_.resize(size);
    unkept_ = true;
    return {};
  }
  void flush(Done done) override {
    std::string text;
    {
      const std::lock_guard lock(mutex_);
      if (!std::exchange(unkept_, false)) return done({});
      text = text_;
    }
    keep(context_, state_, area_, name_, std::move(text), now_ns(), std::move(done));
  }
  void sync(Done done) override {
    flush([alive = context_.alive(), done = std::move(done)](const Status& status) {
      if (!status) return done(status);
      reach_disk(*alive, done);
    });
  }

 private:
  Context& context_;
  const StateId state_;
  const store::FileArea area_;
  const std::string name_;
  std::mutex mutex_;  // guards everything below
  bool unkept_ = true;
  std::string text_;
};

}  // namespace

Result<Attributes> KeptFile::attributes() {
  KVFS_ASSIGN(const store::StateRecord record, context_.store.state(state_));
  KVFS_ASSIGN(const store::FileRecord file, context_.store.file(state_, area_, name_));
  return Attributes{.mode = file_mode(record, kReadWrite),
                    .uid = record.uid,
                    .gid = record.gid,
                    .size = file.content.size(),
                    .changed_ns = file.changed_ns};
}

void KeptFile::change(const Changes& changes, Done done) {
  const auto file = context_.store.file(state_, area_, name_);
  if (!file) return done(fail(file.error()));
  if (!changes.size && !changes.modified_ns) return done({});
  std::string content = file->content;
  content.resize(std::min<std::uint64_t>(changes.size.value_or(content.size()), kMostBytes));
  keep(context_, state_, area_, name_, std::move(content), changes.modified_ns.value_or(now_ns()),
       std::move(done));
}

Result<std::unique_ptr<Handle>> KeptFile::open(int flags) {
  KVFS_ASSIGN(const store::FileRecord file, context_.store.file(state_, area_, name_));
  if ((flags & O_ACCMODE) == O_RDONLY) {
    return std::make_unique<TextHandle>(file.content, PageCache::kNone);
  }
  return keeping_handle(context_, state_, area_, name_,
                        (flags & O_TRUNC) != 0 ? std::string() : file.content);
}

void keep(Context& context, StateId state, store::FileArea area, const std::string& name,
          std::string content, std::int64_t modified_ns, Done done) {
  store::FileRecord file;
  file.changed_ns = modified_ns;
  file.content = std::move(content);
  const bool small = file.content.size() <= kMostSoon;
  auto body = [state, area, name, file = std::move(file)](store::WriteTransaction& tx) -> Status {
    KVFS_TRY(tx.put_file(state, area, name, file));
    return {};
  };
  if (small) return context.store.write_soon(std::move(body), std::move(done));
  context.store.write_async(std::move(body), std::move(done));
}

std::unique_ptr<Handle> keeping_handle(Context& context, StateId state, store::FileArea area,
                                       std::string name, std::string text) {
  return std::make_unique<KeepingHandle>(context, state, area, std::move(name), std::move(text));
}

}  // namespace kvfs::fs

#include "fs/open_files.h"

#include <limits>
#include <unordered_set>
#include <utility>

#include "codec/base/log.h"
#include "engine/store/write_transaction.h"
#include "fs/context.h"
#include "fs/file_buffer.h"

namespace kvfs::fs {

// The row is read under the lock: who unlinks commits first and looks here then, so either the row
// says so or the buffer is found.
Result<std::shared_ptr<FileBuffer>> OpenFiles::get(Context& context, FileId id) {
  const std::lock_guard lock(mutex_);
  auto& known = buffers_[id];
  if (auto buffer = known.lock()) return buffer;
  auto node = context.store.node(id);
  if (!node || !node->linked) {
    buffers_.erase(id);
    if (!node) return fail(node.error());
    return fail(ErrorCode::kNotFound, "opening a file", "it was removed");
  }
  auto buffer = std::make_shared<FileBuffer>(context, id, *std::move(node));
  known = buffer;
  return buffer;
}

std::shared_ptr<FileBuffer> OpenFiles::find(FileId id) const {
  const std::lock_guard lock(mutex_);
  const auto it = buffers_.find(id);
  return it == buffers_.end() ? nullptr : it->second.lock();
}

std::vector<std::shared_ptr<FileBuffer>> OpenFiles::all() const {
  std::vector<std::shared_ptr<FileBuffer>> out;
  const std::lock_guard lock(mutex_);
  for (const auto& [id, known] : buffers_) {
    if (auto buffer = known.lock()) out.push_back(std::move(buffer));
  }
  return out;
}

void OpenFiles::closed(FileId id) {
  const std::lock_guard lock(mutex_);
  const auto it = buffers_.find(id);
  if (it != buffers_.end() && it->second.expired()) buffers_.erase(it);
}

void OpenFiles::unlinked(Context& context, FileId id) {
  if (const auto buffer = find(id)) return buffer->unlinked();
  reap(context, id);
}

void reap(Context& context, FileId id) {
  constexpr std::uint64_t kFew = 64;  // pieces: what goes soon is held in memory until then
  const auto node = context.store.node(id);
  auto body = [id](store::WriteTransaction& tx) { return tx.reap_node(id); };
  auto done = [id](const Status& status) {
    if (!status) KVFS_WARN("file {}: {}", id.value, status.error().message());
  };
  if (node && node->pieces <= kFew) return context.store.write_soon(body, done);
  context.store.write_async(body, done);
}

void store_files_of(Context& context, StateId state, std::function<void(Status)> done) {
  struct Waiting {  // shared by the callbacks; what it guards, its lock guards
    std::mutex mutex;
    std::size_t left = 1;
    Status outcome;
    std::function<void(Status)> done;
    void one(const Status& status) {
      {
        const std::lock_guard lock(mutex);
        if (!status) outcome = status;
        if (--left > 0) return;
      }
      done(outcome);
    }
  };
  const auto waiting = std::make_shared<Waiting>();
  waiting->done = std::move(done);
  const auto open = context.files.all();
  if (!open.empty()) {
    std::unordered_set<FileId> beside;
    const auto entries = context.store.list(state, "", std::numeric_limits<std::size_t>::max());
    if (entries) {
      for (const store::NameEntry& entry : *entries) beside.insert(entry.file);
    }
    for (const auto& buffer : open) {
      if (!beside.contains(buffer->id())) continue;
      {
        const std::lock_guard lock(waiting->mutex);
        ++waiting->left;
      }
      buffer->sync([waiting, buffer](const Status& status) { waiting->one(status); });
    }
  }
  waiting->one({});
}

}  // namespace kvfs::fs

#include "fs/open_files.h"

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
  context.store.write_async([id](store::WriteTransaction& tx) { return tx.reap_node(id); },
                            [id](const Status& status) {
                              if (status) return;
                              KVFS_WARN("file {}: {}", id.value, status.error().message());
                            });
}

}  // namespace kvfs::fs

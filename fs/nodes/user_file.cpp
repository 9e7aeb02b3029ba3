#include "fs/nodes/user_file.h"

#include <fcntl.h>

#include <utility>

#include "engine/store/write_transaction.h"
#include "fs/file_buffer.h"
#include "fs/modes.h"
#include "fs/nodes/snap_dir.h"

namespace kvfs::fs {
namespace {

constexpr std::uint64_t kSparseFrom = std::uint64_t{16} << 20;
constexpr std::uint64_t kBlocksOfPiece = store::kPieceBytes / 512;

class UserHandle : public Handle {
 public:
  explicit UserHandle(std::shared_ptr<FileBuffer> buffer) : buffer_(std::move(buffer)) {}

  // Nobody changes it but through this kernel.
  PageCache page_cache() const override { return PageCache::kKept; }

  void read(std::uint64_t offset, std::size_t size, std::shared_ptr<ReadAnswer> answer) override {
    const auto bytes = buffer_->read(offset, size);
    if (!bytes) return answer->fail(bytes.error());
    answer->data(*bytes);
  }
  void write(std::uint64_t offset, ByteSpan bytes, Answer<std::size_t> done) override {
    buffer_->write(offset, bytes, std::move(done));
  }
  Status truncate(std::uint64_t size) override { return buffer_->resize(size); }
  void flush(Done done) override { buffer_->sync(std::move(done)); }
  void sync(Done done) override { buffer_->reach_disk(std::move(done)); }
  void release() override {  // a mapping's last pages come after the close
    buffer_->sync([buffer = buffer_](const Status&) {});
  }
  Result<std::optional<std::uint64_t>> seek(std::uint64_t offset, bool data) override {
    return buffer_->seek(offset, data);
  }

 private:
  const std::shared_ptr<FileBuffer> buffer_;  // shared with the file's other handles
};

Result<store::FileNode> node_now(Context& context, FileId file) {
  if (const auto buffer = context.files.find(file)) return buffer->node();
  return context.store.node(file);
}

Attributes attributes_of(const store::FileNode& node, std::uint32_t type) {
  return {.mode = type | node.mode,
          .uid = node.uid,
          .gid = node.gid,
          .size = node.size,
          .changed_ns = node.changed_ns,
          .modified_ns = node.modified_ns,
          .blocks = {},
          .links = node.linked ? 1U : 0U};
}

}  // namespace

Result<Attributes> UserFile::attributes() {
  KVFS_ASSIGN(const store::FileNode node, node_now(context_, file_));
  Attributes out = attributes_of(node, S_IFREG);
  if (frozen_) out.mode &= ~0222U;
  // What is there is known of what is on disk alone; only where it is much less do they say so.
  if (node.source || node.size < kSparseFrom) return out;
  KVFS_ASSIGN(const store::FileNode stored, context_.store.node(file_));
  if (stored.pieces * store::kPieceBytes < node.size / 8) {
    out.blocks = stored.pieces * kBlocksOfPiece;
  }
  return out;
}

void UserFile::change(const Changes& changes, Done done) {
  if (frozen_) return done(refuse_in_snapshot("a file"));
  auto buffer = context_.files.get(context_, file_);
  if (!buffer) return done(fail(buffer.error()));
  if (Status status = (*buffer)->change(changes); !status) return done(std::move(status));
  (*buffer)->sync(
      [buffer = *buffer, done = std::move(done)](const Status& status) { done(status); });
}

Result<std::unique_ptr<Handle>> UserFile::open(int flags) {
  const bool writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0;
  if (frozen_ && writes) return refuse_in_snapshot("a file");
  KVFS_ASSIGN(auto buffer, context_.files.get(context_, file_));
  if ((flags & O_TRUNC) != 0) KVFS_TRY(buffer->resize(0));
  return std::make_unique<UserHandle>(std::move(buffer));
}

Result<Attributes> Symlink::attributes() {
  KVFS_ASSIGN(const store::FileNode node, context_.store.node(file_));
  return attributes_of(node, S_IFLNK);
}

void Symlink::change(const Changes& changes, Done done) {
  context_.store.write_soon(
      [file = file_, state = state_, changes](store::WriteTransaction& tx) -> Status {
        if (state) {
          KVFS_ASSIGN(const store::StateRecord record, tx.state(state));
          if (record.snapshot) return refuse_in_snapshot("a link");
        }
        KVFS_ASSIGN(store::FileNode node, tx.node(file));
        node.uid = changes.uid.value_or(node.uid);
        node.gid = changes.gid.value_or(node.gid);
        node.modified_ns = changes.modified_ns.value_or(node.modified_ns);
        node.changed_ns = now_ns();
        return tx.write_node(file, {.node = std::move(node), .pieces = {}});
      },
      std::move(done));
}

Result<std::string> Symlink::link_target() {
  KVFS_ASSIGN(const store::FileNode node, context_.store.node(file_));
  return node.target;
}

store::FileNode new_node(const Creation& how) {
  store::FileNode node;
  node.uid = how.caller.uid;
  node.gid = how.caller.gid;
  node.mode = how.mode;
  node.modified_ns = node.changed_ns = now_ns();
  return node;
}

}  // namespace kvfs::fs

#include "fs/operations.h"

#include <algorithm>
#include <cerrno>

#include "fs/errno.h"
#include "fs/revive.h"

namespace kvfs::fs {
namespace {

constexpr std::uint32_t kMaxTransfer = 1U << 20;  // bytes of one read or write
constexpr std::uint32_t kBackground = 64;         // requests
constexpr int kTries = 4;                         // against a state that advances meanwhile
constexpr std::uint64_t kGeneration = 1;          // numbers are never used again

void init(void* data, fuse_conn_info* connection) {
  const unsigned wanted = FUSE_CAP_EXPORT_SUPPORT | FUSE_CAP_READDIRPLUS |
                          FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO |
                          FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_PARALLEL_DIROPS;
  const unsigned unwanted = FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE |
                            FUSE_CAP_WRITEBACK_CACHE;
  connection->want = (connection->want | (connection->capable & wanted)) & ~unwanted;
  connection->max_write = kMaxTransfer;
  connection->max_readahead = kMaxTransfer;
  connection->max_background = kBackground;
  connection->time_gran = 1;
  static_cast<Session*>(data)->initialized((connection->capable & FUSE_CAP_NO_OPENDIR_SUPPORT) ==
                                           0);
}

void forget(fuse_req_t request, fuse_ino_t ino, std::uint64_t count) {
  session_of(request).context().nodes.forget(ino, count);
  fuse_reply_none(request);
}

void forget_multi(fuse_req_t request, std::size_t count, fuse_forget_data* forgets) {
  for (std::size_t i = 0; i < count; ++i) {
    session_of(request).context().nodes.forget(forgets[i].ino, forgets[i].nlookup);
  }
  fuse_reply_none(request);
}

void statfs(fuse_req_t request, fuse_ino_t /*ino*/) {
  Context& context = session_of(request).context();
  const auto figures = context.store.statistics();
  constexpr std::uint64_t kBlock = 4096;
  struct statvfs disk {};
  const bool known =
      !context.store_disk.empty() && ::statvfs(context.store_disk.c_str(), &disk) == 0;
  // Unknown is not full: nobody writes to a file system that seems so.
  const std::uint64_t free_blocks =
      (known ? disk.f_bavail * disk.f_frsize : std::uint64_t{1} << 40) / kBlock;
  struct statvfs out {};
  out.f_bsize = kBlock;
  out.f_frsize = kBlock;
  out.f_blocks = figures.bytes_stored / kBlock + free_blocks;
  out.f_bfree = free_blocks;
  out.f_bavail = free_blocks;
  out.f_files = figures.states + free_blocks;
  out.f_ffree = free_blocks;
  out.f_favail = free_blocks;
  out.f_namemax = 255;
  fuse_reply_statfs(request, &out);
}

timespec time_of(std::int64_t ns) {
  constexpr std::int64_t kSecond = 1'000'000'000;
  return {.tv_sec = ns / kSecond, .tv_nsec = ns % kSecond};
}

}  // namespace

const fuse_lowlevel_ops& operations() {
  static const fuse_lowlevel_ops kTable = [] {
    fuse_lowlevel_ops table{};
    table.init = init;
    table.forget = forget;
    table.forget_multi = forget_multi;
    table.statfs = statfs;
    fill_directory_operations(table);
    fill_file_operations(table);
    return table;
  }();
  return kTable;
}

NodePtr node_of(Session& session, Ino ino) {
  Context& context = session.context();
  if (NodePtr node = context.nodes.find(ino)) return node;
  return revive(context, ino);
}

std::shared_ptr<Directory> directory_of(Session& session, Ino ino) {
  NodePtr node = node_of(session, ino);
  if (!node || node->as_directory() == nullptr) return nullptr;
  return {node, node->as_directory()};
}

struct stat stat_of(const Node& node, const Attributes& attributes) {
  constexpr std::uint64_t kStatBlock = 512;
  struct stat out {};
  out.st_ino = node.ino();
  out.st_mode = attributes.mode;
  out.st_nlink = attributes.links;  // 1 of a directory: "not counted", which find and rm understand
  out.st_uid = attributes.uid;
  out.st_gid = attributes.gid;
  out.st_size = static_cast<off_t>(attributes.size);
  out.st_blksize = 4096;
  const std::uint64_t dense = attributes.size / kStatBlock + (attributes.size % kStatBlock != 0);
  out.st_blocks = static_cast<blkcnt_t>(std::min(attributes.blocks.value_or(dense), dense));
  out.st_ctim = time_of(attributes.changed_ns);
  out.st_mtim = out.st_atim = time_of(attributes.modified_ns.value_or(attributes.changed_ns));
  return out;
}

Result<fuse_entry_param> entry_of(Context& context, NodePtr node) {
  node = context.nodes.remember(std::move(node));
  const auto attributes = node->attributes();
  if (!attributes) {
    context.nodes.forget(node->ino(), 1);
    return fail(attributes.error());
  }
  const Caching caching = node->caching();
  fuse_entry_param entry{};
  entry.ino = node->ino();
  entry.generation = kGeneration;
  entry.attr = stat_of(*node, *attributes);
  entry.attr_timeout = caching.attributes;
  entry.entry_timeout = caching.entry;
  return entry;
}

// A version's file is registered first and then asked whether it is still the one: who advances the
// state does these in the opposite order, so one of the two notices the other.
Result<fuse_entry_param> look_up(Context& context, Directory& directory, std::string_view name) {
  for (int i = 1;; ++i) {
    KVFS_ASSIGN(NodePtr node, directory.lookup(name));
    KVFS_ASSIGN(fuse_entry_param entry, entry_of(context, node));
    if (node->fresh()) return entry;
    if (i == kTries) {
      entry.entry_timeout = 0;
      return entry;
    }
    context.nodes.forget(entry.ino, 1);
  }
}

void reply_error(fuse_req_t request, const Error& error) {
  fuse_reply_err(request, errno_of(error));
}

void reply_stale(fuse_req_t request, const Error& error) {
  fuse_reply_err(request, error.code == ErrorCode::kNotFound ? ESTALE : errno_of(error));
}

}  // namespace kvfs::fs

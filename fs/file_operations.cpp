// Operations on files and attributes.

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "fs/clock.h"
#include "fs/errno.h"
#include "fs/operations.h"

namespace kvfs::fs {
namespace {

constexpr std::uint64_t kMostShared = std::uint64_t{1} << 31;  // bytes: an answer counts in 32 bits

NodePtr find(fuse_req_t request, fuse_ino_t ino) {
  NodePtr node = node_of(session_of(request), ino);
  if (!node) fuse_reply_err(request, ESTALE);
  return node;
}

// As reply_stale(), for later.
void fail_stale(Request& answer, const Error& error) {
  answer.error(error.code == ErrorCode::kNotFound ? ESTALE : errno_of(error));
}

void getattr(fuse_req_t request, fuse_ino_t ino, fuse_file_info* /*file*/) {
  const NodePtr node = find(request, ino);
  if (!node) return;
  const auto attributes = node->attributes();
  if (!attributes) return reply_stale(request, attributes.error());
  const struct stat st = stat_of(*node, *attributes);
  fuse_reply_attr(request, &st, node->caching().attributes);
}

void setattr(fuse_req_t request, fuse_ino_t ino, struct stat* wanted, int to_set,
             fuse_file_info* file) {
  const NodePtr node = find(request, ino);
  if (!node) return;
  Changes changes;
  if ((to_set & FUSE_SET_ATTR_MODE) != 0) changes.mode = wanted->st_mode & 07777;
  if ((to_set & FUSE_SET_ATTR_UID) != 0) changes.uid = wanted->st_uid;
  if ((to_set & FUSE_SET_ATTR_GID) != 0) changes.gid = wanted->st_gid;
  if ((to_set & FUSE_SET_ATTR_MTIME_NOW) != 0) {
    changes.modified_ns = now_ns();
  } else if ((to_set & FUSE_SET_ATTR_MTIME) != 0) {
    changes.modified_ns = wanted->st_mtim.tv_sec * 1'000'000'000 + wanted->st_mtim.tv_nsec;
  }
  if ((to_set & FUSE_SET_ATTR_SIZE) != 0) {
    const auto size = static_cast<std::uint64_t>(wanted->st_size);
    if (file != nullptr) {
      const Status status = handle_of(file)->truncate(size);
      if (!status) return reply_error(request, status.error());
    } else {
      changes.size = size;
    }
  }
  const auto answer = later(request);
  const bool nothing_left = file != nullptr && (to_set & FUSE_SET_ATTR_SIZE) != 0 &&
                            !changes.mode && !changes.uid && !changes.gid && !changes.modified_ns;
  auto done = [answer, node](const Status& status) {
    if (!status) return fail_stale(*answer, status.error());
    const auto attributes = node->attributes();
    if (!attributes) return fail_stale(*answer, attributes.error());
    const struct stat st = stat_of(*node, *attributes);
    answer->answer(
        [&](fuse_req_t late) { fuse_reply_attr(late, &st, node->caching().attributes); });
  };
  if (nothing_left) return done({});
  node->change(changes, std::move(done));
}

void open(fuse_req_t request, fuse_ino_t ino, fuse_file_info* file) {
  const NodePtr node = find(request, ino);
  if (!node) return;
  if (node->as_file() == nullptr) {
    fuse_reply_err(request, EISDIR);
    return;
  }
  const fuse_ctx* caller = fuse_req_ctx(request);
  node->as_file()->prepare(file->flags,
                           {.uid = caller->uid, .gid = caller->gid, .process = caller->pid},
                           [answer = later(request), node, asked = *file](const Status& ready) {
                             if (!ready) return fail_stale(*answer, ready.error());
                             auto handle = node->as_file()->open(asked.flags);
                             if (!handle) return fail_stale(*answer, handle.error());
                             fuse_file_info made = asked;
                             made.direct_io = (*handle)->page_cache() == PageCache::kNone;
                             made.keep_cache = (*handle)->page_cache() == PageCache::kKept;
                             Session& session = answer->session();
                             made.fh = session.keep(*std::move(handle));
                             answer->answer([&](fuse_req_t late) {
                               if (fuse_reply_open(late, &made) != 0)
                                 release_handle(session, &made);
                             });
                           });
}

void read(fuse_req_t request, fuse_ino_t /*ino*/, std::size_t size, off_t offset,
          fuse_file_info* file) {
  handle_of(file)->read(static_cast<std::uint64_t>(offset), size, later(request));
}

void write(fuse_req_t request, fuse_ino_t /*ino*/, const char* data, std::size_t size, off_t offset,
           fuse_file_info* file) {
  const auto handle = handle_of(file);
  handle->write(static_cast<std::uint64_t>(offset), as_bytes({data, size}),
                [answer = later(request), handle](const Result<std::size_t>& written) {
                  if (!written) return answer->fail(written.error());
                  answer->answer([&](fuse_req_t late) { fuse_reply_write(late, *written); });
                });
}

void flush(fuse_req_t request, fuse_ino_t /*ino*/, fuse_file_info* file) {
  const auto handle = handle_of(file);
  handle->flush(
      [answer = later(request), handle](const Status& status) { answer->status(status); });
}

// Where the mount is re-exported this also counts as a close: a server may keep the file open long
// after its client closed it, and syncs what the client wants to be sure of.
void fsync(fuse_req_t request, fuse_ino_t /*ino*/, int /*data_only*/, fuse_file_info* file) {
  const auto handle = handle_of(file);
  const bool closes = session_of(request).context().behaviour.noblock;
  handle->sync([answer = later(request), handle, closes](const Status& status) {
    if (!status || !closes) return answer->status(status);
    handle->flush([answer](const Status& verdict) { answer->status(verdict); });
  });
}

void lseek(fuse_req_t request, fuse_ino_t ino, off_t offset, int whence, fuse_file_info* file) {
  const NodePtr node = find(request, ino);
  if (!node) return;
  const auto attributes = node->attributes();
  if (!attributes) return reply_stale(request, attributes.error());
  const auto at = static_cast<std::uint64_t>(offset);
  if (offset < 0 || at >= attributes->size) {
    fuse_reply_err(request, ENXIO);
    return;
  }
  const bool data = whence == SEEK_DATA;
  const auto found = handle_of(file)->seek(at, data);
  if (!found) return reply_error(request, found.error());
  if (!*found || (data && **found >= attributes->size)) {
    fuse_reply_err(request, ENXIO);
    return;
  }
  fuse_reply_lseek(request, static_cast<off_t>(std::min(**found, attributes->size)));
}

void release(fuse_req_t request, fuse_ino_t /*ino*/, fuse_file_info* file) {
  release_handle(session_of(request), file);
  fuse_reply_err(request, 0);
}

// cp and cat fall back to reading where this says so: of a growing reply the kernel's own way would
// copy what is there and call it the whole.
// A version's file is shared by what is staged to become another's.
void copy_file_range(fuse_req_t request, fuse_ino_t /*in*/, off_t in_offset,
                     fuse_file_info* in_file, fuse_ino_t /*out*/, off_t out_offset,
                     fuse_file_info* out_file, std::size_t size, int /*flags*/) {
  const auto in = handle_of(in_file);
  const auto source = in->source();
  if (!source) {
    fuse_reply_err(request, in->allows_copy_file_range() ? EOPNOTSUPP : EINVAL);
    return;
  }
  if (static_cast<std::uint64_t>(in_offset) >= source->size) {
    fuse_reply_write(request, 0);
    return;
  }
  const auto out = handle_of(out_file);
  out->take(*source, static_cast<std::uint64_t>(in_offset), static_cast<std::uint64_t>(out_offset),
            std::min<std::uint64_t>(size, kMostShared),
            [answer = later(request), in, out](const Result<std::size_t>& taken) {
              if (!taken) return answer->error(EOPNOTSUPP);
              answer->answer([&](fuse_req_t late) { fuse_reply_write(late, *taken); });
            });
}

}  // namespace

void fill_file_operations(fuse_lowlevel_ops& table) {
  table.getattr = getattr;
  table.setattr = setattr;
  table.open = open;
  table.read = read;
  table.write = write;
  table.flush = flush;
  table.release = release;
  table.fsync = fsync;
  table.lseek = lseek;
  table.copy_file_range = copy_file_range;
}

}  // namespace kvfs::fs

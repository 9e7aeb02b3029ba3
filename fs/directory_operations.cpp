// Operations on directories and the names in them.

#include <cerrno>
#include <cstdio>
#include <mutex>
#include <utility>

#include "fs/caller_intent.h"
#include "fs/errno.h"
#include "fs/operations.h"

namespace kvfs::fs {
namespace {

constexpr std::size_t kMostName = 255;

// An open directory: what was in it when its reading began.
struct OpenDirectory : Opened {
  std::shared_ptr<Directory> directory;
  std::mutex mutex;  // guards the rest
  bool listed = false;
  std::vector<Entry> entries;
};

std::shared_ptr<OpenDirectory> opened(const fuse_file_info* file) {
  return std::static_pointer_cast<OpenDirectory>(Session::opened(file->fh));
}

std::shared_ptr<Directory> find(fuse_req_t request, fuse_ino_t ino) {
  auto directory = directory_of(session_of(request), ino);
  if (!directory) fuse_reply_err(request, ESTALE);
  return directory;
}

void reply_entry(Session& session, fuse_req_t request, const fuse_entry_param& entry) {
  if (fuse_reply_entry(request, &entry) != 0) session.context().nodes.forget(entry.ino, 1);
}

void answer_entry(Request& answer, NodePtr node) {
  Session& session = answer.session();
  const auto entry = entry_of(session.context(), std::move(node));
  if (!entry) return answer.fail(entry.error());
  answer.answer([&](fuse_req_t late) { reply_entry(session, late, *entry); });
}

Result<fuse_entry_param> look_up_any(Session& session, Directory& directory,
                                     std::string_view name) {
  if (name == ".") return entry_of(session.context(), directory.shared_from_this());
  if (name == "..") {
    KVFS_ASSIGN(NodePtr parent, directory.parent());
    return entry_of(session.context(), std::move(parent));
  }
  return look_up(session.context(), directory, name);
}

// Whatever is made or renamed is looked up first.
void lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
  if (std::string_view(name).size() > kMostName) {
    fuse_reply_err(request, ENAMETOOLONG);
    return;
  }
  const auto directory = find(request, parent);
  if (!directory) return;
  Session& session = session_of(request);
  if (directory->yields(name) && makes_a_new_name(fuse_req_ctx(request)->pid, name)) {
    fuse_reply_err(request, ENOENT);
    return;
  }
  const auto entry = look_up_any(session, *directory, name);
  if (!entry) return reply_error(request, entry.error());
  reply_entry(session, request, *entry);
}

void opendir(fuse_req_t request, fuse_ino_t ino, fuse_file_info* file) {
  auto directory = find(request, ino);
  if (!directory) return;
  auto open = std::make_unique<OpenDirectory>();
  open->directory = std::move(directory);
  Session& session = session_of(request);
  file->fh = session.keep(std::move(open));
  if (fuse_reply_open(request, file) != 0) session.take(file->fh);
}

// What was made, renamed and removed in it before.
void fsyncdir(fuse_req_t request, fuse_ino_t /*ino*/, int /*data_only*/, fuse_file_info* /*file*/) {
  reach_disk(session_of(request).context(),
             [answer = later(request)](const Status& status) { answer->status(status); });
}

void releasedir(fuse_req_t request, fuse_ino_t /*ino*/, fuse_file_info* file) {
  session_of(request).take(file->fh);
  fuse_reply_err(request, 0);
}

// Offsets are places in the listing, "." and ".." first; an entry carries that of the one after it.
class Listing {
 public:
  Listing(fuse_req_t request, std::size_t size, bool plus)
      : request_(request), plus_(plus), buffer_(size) {}

  // False: it does not fit any more.
  bool add(Directory& directory, const Entry& entry, off_t next) {
    Context& context = session_of(request_).context();
    fuse_entry_param param{};
    param.attr.st_ino = entry.ino;
    param.attr.st_mode = entry.symlink ? S_IFLNK : entry.directory ? S_IFDIR : S_IFREG;
    const bool dots = entry.name == "." || entry.name == "..";
    if (plus_ && !dots && directory.lists_attributes(entry)) {
      const auto found = look_up(context, directory, entry.name);
      if (!found) return true;  // gone since
      param = *found;
    }
    char* const at = buffer_.data() + used_;
    const std::size_t left = buffer_.size() - used_;
    const char* const name = entry.name.c_str();
    const std::size_t needed = plus_
                                   ? fuse_add_direntry_plus(request_, at, left, name, &param, next)
                                   : fuse_add_direntry(request_, at, left, name, &param.attr, next);
    if (needed > left) {
      if (param.ino != 0) context.nodes.forget(param.ino, 1);
      return false;
    }
    used_ += needed;
    return true;
  }

  void reply() { fuse_reply_buf(request_, buffer_.data(), used_); }

 private:
  const fuse_req_t request_;
  const bool plus_;
  std::vector<char> buffer_;
  std::size_t used_ = 0;
};

Status refresh(OpenDirectory& open) {
  Directory& directory = *open.directory;
  KVFS_ASSIGN(open.entries, directory.list());
  const auto parent = directory.parent();
  const Ino parent_ino = parent ? (*parent)->ino() : directory.ino();
  const Entry dots[] = {{".", true, directory.ino()}, {"..", true, parent_ino}};
  open.entries.insert(open.entries.begin(), std::begin(dots), std::end(dots));
  open.listed = true;
  return {};
}

void list(fuse_req_t request, std::size_t size, off_t offset, fuse_file_info* file, bool plus) {
  const auto open = opened(file);
  const std::lock_guard lock(open->mutex);
  if (offset == 0 || !open->listed) {
    if (const Status status = refresh(*open); !status) return reply_stale(request, status.error());
  }
  Listing listing(request, size, plus);
  for (auto i = static_cast<std::size_t>(offset); i < open->entries.size(); ++i) {
    if (!listing.add(*open->directory, open->entries[i], static_cast<off_t>(i + 1))) break;
  }
  listing.reply();
}

void readdir(fuse_req_t request, fuse_ino_t /*ino*/, std::size_t size, off_t offset,
             fuse_file_info* file) {
  list(request, size, offset, file, false);
}

void readdirplus(fuse_req_t request, fuse_ino_t /*ino*/, std::size_t size, off_t offset,
                 fuse_file_info* file) {
  list(request, size, offset, file, true);
}

void mkdir(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t /*mode*/) {
  const auto directory = find(request, parent);
  if (!directory) return;
  const fuse_ctx* caller = fuse_req_ctx(request);
  directory->make_directory(name, {.uid = caller->uid, .gid = caller->gid, .process = caller->pid},
                            [answer = later(request)](Result<NodePtr> made) {
                              if (!made) return answer->fail(made.error());
                              answer_entry(*answer, *std::move(made));
                            });
}

void rmdir(fuse_req_t request, fuse_ino_t parent, const char* name) {
  const auto directory = find(request, parent);
  if (!directory) return;
  directory->remove_directory(
      name, [answer = later(request)](const Status& status) { answer->status(status); });
}

void unlink(fuse_req_t request, fuse_ino_t parent, const char* name) {
  const auto directory = find(request, parent);
  if (!directory) return;
  directory->remove_file(
      name, [answer = later(request)](const Status& status) { answer->status(status); });
}

void rename(fuse_req_t request, fuse_ino_t parent, const char* name, fuse_ino_t new_parent,
            const char* new_name, unsigned flags) {
  const auto from = find(request, parent);
  if (!from) return;
  const auto to = find(request, new_parent);
  if (!to) return;
  if ((flags & ~static_cast<unsigned>(RENAME_NOREPLACE)) != 0) {
    fuse_reply_err(request, EINVAL);
  } else if (from->holds() != to->holds() ||
             (from->holds() == Holds::kSnapshots && parent != new_parent)) {
    fuse_reply_err(request, EXDEV);
  } else if (parent == new_parent && std::string_view(name) == new_name) {
    fuse_reply_err(request, 0);
  } else {
    from->rename(name, *to, new_name, (flags & RENAME_NOREPLACE) == 0,
                 [answer = later(request), to](const Status& status) { answer->status(status); });
  }
}

Creation creation(fuse_req_t request, int flags, mode_t mode) {
  const fuse_ctx* caller = fuse_req_ctx(request);
  return {.flags = flags,
          .mode = mode & 07777,
          .caller = {.uid = caller->uid, .gid = caller->gid, .process = caller->pid}};
}

void create(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode,
            fuse_file_info* file) {
  const auto directory = find(request, parent);
  if (!directory) return;
  const fuse_file_info asked = *file;
  directory->create_file(name, creation(request, file->flags, mode),
                         [answer = later(request), asked, directory](Result<Created> created) {
                           if (!created) return answer->fail(created.error());
                           Session& session = answer->session();
                           const auto entry = entry_of(session.context(), created->node);
                           if (!entry) {
                             created->handle->release();
                             return answer->fail(entry.error());
                           }
                           fuse_file_info made = asked;
                           made.direct_io = created->handle->page_cache() == PageCache::kNone;
                           made.keep_cache = created->handle->page_cache() == PageCache::kKept;
                           made.fh = session.keep(std::move(created->handle));
                           answer->answer([&](fuse_req_t late) {
                             if (fuse_reply_create(late, &*entry, &made) == 0) return;
                             session.context().nodes.forget(entry->ino, 1);
                             release_handle(session, &made);
                           });
                         });
}

// What knfsd and overlayfs make files with.
void mknod(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode, dev_t /*device*/) {
  const auto directory = find(request, parent);
  if (!directory) return;
  if (!S_ISREG(mode)) {
    fuse_reply_err(request, EPERM);
    return;
  }
  directory->create_file(name, creation(request, O_WRONLY | O_EXCL, mode),
                         [answer = later(request), directory](Result<Created> created) {
                           if (!created) return answer->fail(created.error());
                           created->handle->release();
                           answer_entry(*answer, std::move(created->node));
                         });
}

void symlink(fuse_req_t request, const char* target, fuse_ino_t parent, const char* name) {
  const auto directory = find(request, parent);
  if (!directory) return;
  directory->make_symlink(name, target, creation(request, 0, 0).caller,
                          [answer = later(request), directory](Result<NodePtr> made) {
                            if (!made) return answer->fail(made.error());
                            answer_entry(*answer, *std::move(made));
                          });
}

void readlink(fuse_req_t request, fuse_ino_t ino) {
  const NodePtr node = node_of(session_of(request), ino);
  if (!node) {
    fuse_reply_err(request, ESTALE);
    return;
  }
  const auto target = node->link_target();
  if (!target) return reply_stale(request, target.error());
  fuse_reply_readlink(request, target->c_str());
}

void link(fuse_req_t request, fuse_ino_t /*ino*/, fuse_ino_t /*parent*/, const char* /*name*/) {
  fuse_reply_err(request, EPERM);
}

}  // namespace

void fill_directory_operations(fuse_lowlevel_ops& table) {
  table.lookup = lookup;
  table.opendir = opendir;
  table.releasedir = releasedir;
  table.fsyncdir = fsyncdir;
  table.readdir = readdir;
  table.readdirplus = readdirplus;
  table.mkdir = mkdir;
  table.rmdir = rmdir;
  table.unlink = unlink;
  table.rename = rename;
  table.create = create;
  table.mknod = mknod;
  table.symlink = symlink;
  table.readlink = readlink;
  table.link = link;
}

}  // namespace kvfs::fs

// Operations on directories and the names in them.

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "fs/caller_intent.h"
#include "fs/errno.h"
#include "fs/listings.h"
#include "fs/operations.h"

namespace kvfs::fs {
namespace {

constexpr std::size_t kMostName = 255;

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

// Nothing is kept for an open directory (listings.h): a kernel that understands asks this once. It
// keeps listings then, and what it keeps is good until `list` or a notice says otherwise.
void opendir(fuse_req_t request, fuse_ino_t /*ino*/, fuse_file_info* file) {
  if (session_of(request).opens_directories()) {
    fuse_reply_open(request, file);
  } else {
    fuse_reply_err(request, ENOSYS);
  }
}

// What was made, renamed and removed in it before.
void fsyncdir(fuse_req_t request, fuse_ino_t /*ino*/, int /*data_only*/, fuse_file_info* /*file*/) {
  reach_disk(session_of(request).context(),
             [answer = later(request)](const Status& status) { answer->status(status); });
}

// A part of a listing, as it goes to the kernel.
class Part {
 public:
  Part(fuse_req_t request, std::size_t size, bool plus)
      : request_(request), plus_(plus), buffer_(room(size)) {}

  // False: it does not fit any more.
  bool add(Directory& directory, const Listed& listed) {
    const Entry& entry = listed.entry;
    const auto next = static_cast<off_t>(listed.place);
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
  // The thread's own, which answers one request at a time.
  static std::span<char> room(std::size_t size) {
    thread_local std::vector<char> buffer;
    if (buffer.size() < size) buffer.resize(size);
    return std::span(buffer).first(size);
  }

  const fuse_req_t request_;
  const bool plus_;
  const std::span<char> buffer_;
  std::size_t used_ = 0;
};

void list(fuse_req_t request, fuse_ino_t ino, std::size_t size, off_t offset, bool plus) {
  const auto directory = find(request, ino);
  if (!directory) return;
  Context& context = session_of(request).context();
  auto listing = offset == 0 ? nullptr : context.listings.find(ino);
  if (!listing) {
    auto now = context.listings.read(*directory);
    if (!now) return reply_stale(request, now.error());
    listing = context.listings.keep(ino, *std::move(now));
  }
  const auto behind = static_cast<std::uint64_t>(offset);
  const auto& entries = listing->entries;
  auto next = std::ranges::upper_bound(entries, behind, {}, &Listed::place);
  if (next == entries.end()) {
    context.listings.drop(ino);
    // From its end on the kernel takes what it has read for the directory.
    if (!context.listings.lasts(ino, *listing)) context.background_notifier.listing(ino);
  }
  Part part(request, size, plus);
  while (next != entries.end() && part.add(*directory, *next)) ++next;
  part.reply();
}

void readdir(fuse_req_t request, fuse_ino_t ino, std::size_t size, off_t offset,
             fuse_file_info* /*file*/) {
  list(request, ino, size, offset, false);
}

void readdirplus(fuse_req_t request, fuse_ino_t ino, std::size_t size, off_t offset,
                 fuse_file_info* /*file*/) {
  list(request, ino, size, offset, true);
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

// The kernel's protocol on one side, nodes on the other: each operation finds its node, asks it,
// and turns Results into replies. FUSE workers only.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "fs/fuse.h"
#include "fs/node.h"
#include "fs/request.h"
#include "fs/session.h"

namespace kvfs::fs {

const fuse_lowlevel_ops& operations();
void fill_directory_operations(fuse_lowlevel_ops& table);
void fill_file_operations(fuse_lowlevel_ops& table);

inline Session& session_of(fuse_req_t request) {
  return *static_cast<Session*>(fuse_req_userdata(request));
}
inline std::shared_ptr<Request> later(fuse_req_t request) {
  return std::make_shared<Request>(session_of(request).shared_from_this(), request);
}

inline std::shared_ptr<Handle> handle_of(const fuse_file_info* file) {
  return std::static_pointer_cast<Handle>(Session::opened(file->fh));
}
// The last descriptor is closed, or the open that was to give one did not arrive.
inline void release_handle(Session& session, const fuse_file_info* file) {
  const auto opened = session.take(file->fh);
  static_cast<Handle&>(*opened).release();
}

// The node of a number; null when there is no such thing (any more).
NodePtr node_of(Session& session, Ino ino);
std::shared_ptr<Directory> directory_of(Session& session, Ino ino);

struct stat stat_of(const Node& node, const Attributes& attributes);

// A node's entry as the kernel gets it. The kernel's count of it is one up: forget() it when the
// reply does not arrive.
Result<fuse_entry_param> entry_of(Context& context, NodePtr node);
Result<fuse_entry_param> look_up(Context& context, Directory& directory, std::string_view name);

void reply_error(fuse_req_t request, const Error& error);
// Of a node itself, not of a name in it: what is gone is stale, and the kernel looks the path up
// anew.
void reply_stale(fuse_req_t request, const Error& error);

}  // namespace kvfs::fs

#include "fs/nodes/states_dir.h"

#include "fs/modes.h"
#include "fs/nodes/root.h"

namespace kvfs::fs {

Result<Attributes> StatesDir::attributes() {
  Attributes out = daemon_directory(context());
  out.mode = S_IFDIR | S_ISVTX | 0777;
  out.changed_ns = context().name_times.at_least(ino(), out.changed_ns);
  return out;
}

Result<NodePtr> StatesDir::parent() { return std::make_shared<Root>(context()); }

}  // namespace kvfs::fs

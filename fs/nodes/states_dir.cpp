#include "fs/nodes/states_dir.h"

#include "fs/modes.h"
#include "fs/nodes/root.h"

namespace kvfs::fs {

Result<Attributes> StatesDir::attributes() {
  Attributes out = daemon_directory(context());
  out.mode = S_IFDIR | S_ISVTX | 0777;
  return out;
}

Result<NodePtr> StatesDir::parent() { return std::make_shared<Root>(context()); }

}  // namespace kvfs::fs

#include "fs/nodes/staging_dir.h"

#include <fcntl.h>

#include "fs/nodes/root.h"

namespace kvfs::fs {

Result<Created> StagingDir::create_staged(const std::string& name, int flags) {
  KVFS_TRY(context().store.state(state()));  // a removed state's directory may still be open
  auto made = std::make_shared<StagedFile>(context(), place(), name);
  const auto file = context().staging.add(made);
  if (file != made && (flags & O_EXCL) != 0) {
    return fail(ErrorCode::kExists, "creating " + name, "it is there");
  }
  KVFS_ASSIGN(auto handle, file->open(flags));
  return Created{file, std::move(handle)};
}

}  // namespace kvfs::fs

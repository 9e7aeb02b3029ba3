// What spools and params/ have in common: users write files in them, under scratch names too.
#pragma once

#include "fs/nodes/part_directory.h"
#include "fs/staged_file.h"

namespace kvfs::fs {

class StagingDir : public PartDirectory {
 public:
  using PartDirectory::PartDirectory;

  Holds holds() const override { return Holds::kStagedFiles; }
  // Takes a file that was written elsewhere, or here under a scratch name.
  virtual void take(std::shared_ptr<StagedFile> file, const std::string& name, bool replace,
                    Done done) = 0;

 protected:
  Place place() const { return {state(), part()}; }
  Result<Created> create_staged(const std::string& name, int flags);
};

}  // namespace kvfs::fs

// feed/, continue/, ask/: a file dropped here is a prompt. See spooler.h.
#pragma once

#include "fs/nodes/staging_dir.h"

namespace kvfs::fs {

class SpoolDir : public StagingDir {
 public:
  using StagingDir::StagingDir;
  Result<NodePtr> lookup(std::string_view name) override;
  Result<std::vector<Entry>> list() override;
  // Jobs come and end.
  bool at_rest(const std::vector<Entry>& listed) override { return listed.empty(); }
  void create_file(const std::string& name, const Creation& how, Answer<Created> done) override;
  void remove_file(const std::string& name, Done done) override;
  void rename(const std::string& name, Directory& to, const std::string& new_name, bool replace,
              Done done) override;
  void take(std::shared_ptr<StagedFile> file, const std::string& name, bool replace,
            Done done) override;
};

}  // namespace kvfs::fs

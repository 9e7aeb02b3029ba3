// params/: one file a parameter, and the scratch files of those who replace them whole.
#pragma once

#include "fs/nodes/staging_dir.h"

namespace kvfs::fs {

class ParamsDir : public StagingDir {
 public:
  ParamsDir(Context& context, StateId state) : StagingDir(context, state, StatePart::kParams) {}
  Result<NodePtr> lookup(std::string_view name) override;
  Result<std::vector<Entry>> list() override;
  bool at_rest(const std::vector<Entry>& listed) override;
  bool lists_attributes(const Entry& entry) const override;
  void create_file(const std::string& name, const Creation& how, Answer<Created> done) override;
  void remove_file(const std::string& name, Done done) override;
  void rename(const std::string& name, Directory& to, const std::string& new_name, bool replace,
              Done done) override;
  bool yields(std::string_view name) override;
  void take(std::shared_ptr<StagedFile> file, const std::string& name, bool replace,
            Done done) override;

 private:
  Result<Created> create(const std::string& name, int flags);
};

}  // namespace kvfs::fs

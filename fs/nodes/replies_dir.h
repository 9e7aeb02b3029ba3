// replies/: one file a job that has, or will have, a reply.
#pragma once

#include "fs/nodes/part_directory.h"

namespace kvfs::fs {

class RepliesDir : public PartDirectory {
 public:
  RepliesDir(Context& context, StateId state)
      : PartDirectory(context, state, StatePart::kReplies) {}
  Result<NodePtr> lookup(std::string_view name) override;
  Result<std::vector<Entry>> list() override;
  bool at_rest(const std::vector<Entry>& listed) override;
  // What a copy brings is kept, and no job's.
  void create_file(const std::string& name, const Creation& how, Answer<Created> done) override;
  void remove_file(const std::string& name, Done done) override;
  void rename(const std::string& name, Directory& to, const std::string& new_name, bool replace,
              Done done) override;

 private:
  bool is_kept(std::string_view name) const;  // and no job of that name is known
};

}  // namespace kvfs::fs

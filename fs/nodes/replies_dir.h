// replies/: one file a job that has, or will have, a reply.
#pragma once

#include "fs/nodes/part_directory.h"

namespace kvfs::fs {

class RepliesDir : public PartDirectory {
 public:
  RepliesDir(Context& context, StateId state)
      : PartDirectory(context, state, StatePart::kReplies) {}
  Caching caching() const override { return {.entry = 1, .attributes = 0}; }
  Result<NodePtr> lookup(std::string_view name) override;
  Result<std::vector<Entry>> list() override;
  void remove_file(const std::string& name, Done done) override;
};

}  // namespace kvfs::fs

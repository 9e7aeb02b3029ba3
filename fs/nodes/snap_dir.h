// .snap/: a state's snapshots. mkdir takes one, rmdir drops it, rename renames it; each is a
// read-only state, see StateDir. Not listed in the state's directory unless `-o snapdir`.
#pragma once

#include "fs/nodes/part_directory.h"

namespace kvfs::fs {

class SnapDir : public PartDirectory {
 public:
  SnapDir(Context& context, StateId state) : PartDirectory(context, state, StatePart::kSnap) {}
  Holds holds() const override { return Holds::kSnapshots; }
  Result<NodePtr> lookup(std::string_view name) override;
  Result<std::vector<Entry>> list() override;
  void make_directory(const std::string& name, const Caller& caller, Answer<NodePtr> done) override;
  void remove_directory(const std::string& name, Done done) override;
  void rename(const std::string& name, Directory& to, const std::string& new_name, bool replace,
              Done done) override;
};

tl::unexpected<Error> refuse_in_snapshot(const std::string& name);

}  // namespace kvfs::fs

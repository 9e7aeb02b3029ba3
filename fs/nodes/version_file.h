// A file of one version of a state: state.json, text, tokens.npy, kv/layer-NNN.safetensors. It
// never changes; when the state advances its name stands for another node.
#pragma once

#include <memory>
#include <string>

#include "fs/context.h"
#include "fs/node.h"
#include "fs/nodes/copied_file.h"
#include "fs/version_files.h"

namespace kvfs::fs {

struct CurrentVersion {
  store::StateRecord record;
  std::shared_ptr<VersionFiles> files;  // null while the state has no tokens
};
Result<CurrentVersion> current_version(Context& context, StateId state);

class VersionFile : public File {
 public:
  VersionFile(Context& context, Ino ino, StateId state, const store::StateRecord& record,
              VersionPart part, EntryPlace place, std::uint64_t size);

  Result<Attributes> attributes() override;
  Caching caching() const override { return {kUntilTold, kUntilTold}; }
  StateId state() const override { return state_; }
  std::optional<EntryPlace> entry() const override { return place_; }
  bool fresh() override;
  void change(const Changes& changes, Done done) override;
  // Who writes gets a copy of it, staged under its name: another file, for which the kernel looks
  // when it is told so. Who holds this one all the same (a descriptor opened again, an NFS handle)
  // comes back and writes the copy through it.
  void prepare(int flags, const Caller& caller, Done done) override;
  Result<std::unique_ptr<Handle>> open(int flags) override;

 protected:
  VersionPart part() const { return part_; }
  VersionId version() const { return version_; }
  const EntryPlace& place() const { return place_; }
  Context& context() const { return context_; }

 private:
  void stage_copy(const Creation& how, std::uint64_t keep, Done done);
  std::string path() const;                  // where its copy is staged
  std::shared_ptr<CopiedFile> copy() const;  // null: none is

  Context& context_;
  const StateId state_;
  const VersionId version_;
  const VersionPart part_;
  const EntryPlace place_;
  const Attributes born_;  // as it was looked up: what a state that is gone leaves
};

Result<NodePtr> version_file(Context& context, StateId state, const CurrentVersion& now,
                             VersionPart part, EntryPlace place);

}  // namespace kvfs::fs

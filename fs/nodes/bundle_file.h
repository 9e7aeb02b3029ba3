// bundles/NAME.pt and NAME.safetensors: a version of a state as one file. Who writes one gets a new
// file in its place, which becomes the state when it is closed: see incoming.h.
#pragma once

#include "fs/nodes/version_file.h"

namespace kvfs::fs {

class BundleFile : public VersionFile {
 public:
  BundleFile(Context& context, Ino ino, StateId state, const store::StateRecord& record,
             VersionPart part, EntryPlace place, std::uint64_t size, StateId container)
      : VersionFile(context, ino, state, record, part, std::move(place), size),
        container_(container) {}

  // Looked up each time: it follows the state, which can be renamed and removed.
  Caching caching() const override { return {.entry = 0, .attributes = kUntilTold}; }
  std::optional<EntryPlace> entry() const override { return std::nullopt; }
  bool fresh() override;
  void change(const Changes& changes, Done done) override;
  void prepare(int flags, const Caller& caller, Done done) override;
  Result<std::unique_ptr<Handle>> open(int flags) override;

 private:
  void replace(const Caller& caller, Done done);

  const StateId container_;
};

// The part that a bundle of that name is; nothing: no name of one that can be read.
std::optional<VersionPart> bundle_part(std::string_view name);

}  // namespace kvfs::fs

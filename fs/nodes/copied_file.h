// A file on its way to become one of a state's data: staged until the copy is complete, see
// arrivals.h. Its name is a data file's, or a temporary one in kv/.
#pragma once

#include <string>

#include "fs/nodes/user_file.h"

namespace kvfs::fs {

class CopiedFile : public UserFile {
 public:
  CopiedFile(Context& context, FileId file, StateId state, EntryPlace place)
      : UserFile(context, file, state, false), place_(std::move(place)) {}

  Caching caching() const override { return {}; }
  std::optional<EntryPlace> entry() const override { return place_; }
  bool fresh() override;  // it has not become the state's
  Result<std::unique_ptr<Handle>> open(int flags) override;
  // Opened by who holds the file whose name it took: past the page cache, which is that file's.
  Result<std::unique_ptr<Handle>> open_instead_of(Ino other, int flags);

 private:
  const EntryPlace place_;
};

// Where a name in a state's directory, or in its kv/, is staged; the path it has there.
std::string staged_path(StatePart directory, std::string_view name);

// What is staged under a path, as a node.
std::shared_ptr<CopiedFile> staged_node(Context& context, StateId state, const std::string& path,
                                        EntryPlace place);

// A new staged file of that path; a version's file that it begins as, where there is one.
struct Beginning {
  VersionId version;
  store::DataPart part = store::DataPart::kStateJson;
  std::uint64_t bytes = 0;
};
void stage(Context& context, StateId state, const std::string& path, store::FileNode node,
           std::optional<Beginning> from, Answer<FileId> done);
void create_staged_file(Context& context, StateId state, const std::string& path, EntryPlace place,
                        const Creation& how, Answer<Created> done);

}  // namespace kvfs::fs

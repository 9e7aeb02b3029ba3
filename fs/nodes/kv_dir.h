// kv/: one safetensors file a layer, of the state's current version.
#pragma once

#include "fs/nodes/part_directory.h"

namespace kvfs::fs {

class KvDir : public PartDirectory {
 public:
  KvDir(Context& context, StateId state) : PartDirectory(context, state, StatePart::kKv) {}
  Result<Attributes> attributes() override;  // as old as the version
  Result<NodePtr> lookup(std::string_view name) override;
  Result<std::vector<Entry>> list() override;
  bool at_rest(const std::vector<Entry>& listed) override;
  // What is being copied here, under temporary names too, stands before the version's files.
  Holds holds() const override { return Holds::kStates; }
  Result<store::FilePlace> file_place(const std::string& name) override;
  bool yields(std::string_view name) override;
  void create_file(const std::string& name, const Creation& how, Answer<Created> done) override;
  void remove_file(const std::string& name, Done done) override;
  void rename(const std::string& name, Directory& to, const std::string& new_name, bool replace,
              Done done) override;
};

}  // namespace kvfs::fs

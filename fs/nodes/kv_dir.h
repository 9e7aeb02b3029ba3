// kv/: one safetensors file a layer, of the state's current version.
#pragma once

#include "fs/nodes/part_directory.h"

namespace kvfs::fs {

class KvDir : public PartDirectory {
 public:
  KvDir(Context& context, StateId state) : PartDirectory(context, state, StatePart::kKv) {}
  Result<NodePtr> lookup(std::string_view name) override;
  Result<std::vector<Entry>> list() override;
  void remove_file(const std::string& name, Done done) override;
};

}  // namespace kvfs::fs

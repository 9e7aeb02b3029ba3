// bundles/, and below it a directory for each state with children: every state as one file,
// NAME.pt and NAME.safetensors. What is written here becomes a state. See incoming.h.
#pragma once

#include <string>

#include "fs/context.h"
#include "fs/node.h"
#include "fs/nodes/version_file.h"

namespace kvfs::fs {

class BundlesDir : public Directory {
 public:
  BundlesDir(Context& context, StateId container);  // none: bundles/ itself

  Result<Attributes> attributes() override;
  StateId state() const override { return container_; }
  void change(const Changes& /*changes*/, Done done) override { done({}); }  // the state's
  Result<NodePtr> parent() override;
  Result<NodePtr> lookup(std::string_view name) override;
  Result<std::vector<Entry>> list() override;
  Holds holds() const override { return Holds::kBundles; }

  void make_directory(const std::string& name, const Caller& caller, Answer<NodePtr> done) override;
  void remove_directory(const std::string& name, Done done) override;
  void remove_file(const std::string& name, Done done) override;
  void create_file(const std::string& name, const Creation& how, Answer<Created> done) override;
  void rename(const std::string& name, Directory& to, const std::string& new_name, bool replace,
              Done done) override;

 private:
  Result<StateId> child(std::string_view name) const;
  Result<NodePtr> bundle(std::string_view name);
  Status list_state(const store::NameEntry& entry, std::vector<Entry>& entries) const;

  Context& context_;
  const StateId container_;
};

}  // namespace kvfs::fs

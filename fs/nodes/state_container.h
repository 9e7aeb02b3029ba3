// What states/ and a state's directory have in common: states in them, made by mkdir, dropped by
// rmdir, moved by rename.
#pragma once

#include <string>

#include "fs/context.h"
#include "fs/node.h"

namespace kvfs::fs {

class StateContainer : public Directory {
 public:
  StateContainer(Context& context, Ino ino, StateId container)
      : Directory(ino), context_(context), container_(container) {}

  Holds holds() const override { return Holds::kStates; }
  Result<NodePtr> lookup(std::string_view name) override;
  Result<std::vector<Entry>> list() override;
  void make_directory(const std::string& name, const Caller& caller, Answer<NodePtr> done) override;
  void remove_directory(const std::string& name, Done done) override;
  void rename(const std::string& name, Directory& to, const std::string& new_name, bool replace,
              Done done) override;
  Result<Created> create_file(const std::string& name, int flags) override;

 protected:
  Context& context() const { return context_; }
  StateId container() const { return container_; }  // none: states/ itself

 private:
  Result<StateId> child(std::string_view name);

  Context& context_;
  const StateId container_;
};

}  // namespace kvfs::fs

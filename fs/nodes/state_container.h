// What states/ and a state's directory have in common: states in them, made by mkdir, dropped by
// rmdir, moved by rename; and beside them the files and symbolic links that users leave there.
#pragma once

#include <string>

#include "fs/context.h"
#include "fs/node.h"

namespace kvfs::fs {

class StateContainer : public Directory {
 public:
  StateContainer(Context& context, Ino ino, StateId container, bool frozen)
      : Directory(ino), context_(context), container_(container), frozen_(frozen) {}

  Holds holds() const override { return Holds::kStates; }
  Result<NodePtr> lookup(std::string_view name) override;
  Result<std::vector<Entry>> list() override;
  void make_directory(const std::string& name, const Caller& caller, Answer<NodePtr> done) override;
  void remove_directory(const std::string& name, Done done) override;
  void rename(const std::string& name, Directory& to, const std::string& new_name, bool replace,
              Done done) override;
  void create_file(const std::string& name, const Creation& how, Answer<Created> done) override;
  void make_symlink(const std::string& name, const std::string& target, const Caller& caller,
                    Answer<NodePtr> done) override;
  void remove_file(const std::string& name, Done done) override;
  Result<store::FilePlace> file_place(const std::string& name) override;

 protected:
  // A file that is renamed into this directory.
  virtual void take(StateContainer& from, const std::string& name, const std::string& new_name,
                    bool replace, Done done);
  Context& context() const { return context_; }
  StateId container() const { return container_; }  // none: states/ itself
  bool frozen() const { return frozen_; }           // a snapshot

 private:
  Result<StateId> child(std::string_view name);
  NodePtr file_node(const store::NameEntry& entry);
  Status check_file_name(const std::string& name) const;
  void create(const std::string& name, store::FileNode node, Answer<FileId> done);
  Context& context_;
  const StateId container_;
  const bool frozen_;
};

// A user's file, wherever file_place() says that the directory keeps it.
void unlink_file(Context& context, Directory& from, const std::string& name, Done done);
void move_file(Context& context, Directory& from, const std::string& name, Directory& to,
               const std::string& new_name, bool replace, Done done);

}  // namespace kvfs::fs

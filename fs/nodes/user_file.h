// A file that a user keeps beside a state: a note, a PDF, an editor's swap file. See file_buffer.h.
#pragma once

#include "fs/context.h"
#include "fs/node.h"

namespace kvfs::fs {

class UserFile : public File {
 public:
  // frozen: in a snapshot. `state`: the group of nodes it belongs to.
  UserFile(Context& context, FileId file, StateId state, bool frozen)
      : File(ino_of(file)), context_(context), file_(file), state_(state), frozen_(frozen) {}

  FileId file() const { return file_; }
  Context& context() const { return context_; }
  Result<Attributes> attributes() override;
  Caching caching() const override { return {.entry = 1, .attributes = 1}; }
  StateId state() const override { return state_; }
  void change(const Changes& changes, Done done) override;
  Result<std::unique_ptr<Handle>> open(int flags) override;

 private:
  Context& context_;
  const FileId file_;
  const StateId state_;
  const bool frozen_;
};

class Symlink : public Node {
 public:
  Symlink(Context& context, FileId file, StateId state)
      : Node(ino_of(file)), context_(context), file_(file), state_(state) {}

  Result<Attributes> attributes() override;
  Caching caching() const override { return {.entry = 1, .attributes = 1}; }
  StateId state() const override { return state_; }
  void change(const Changes& changes, Done done) override;
  Result<std::string> link_target() override;

 private:
  Context& context_;
  const FileId file_;
  const StateId state_;
};

// A file's record at its birth.
store::FileNode new_node(const Creation& how);

}  // namespace kvfs::fs

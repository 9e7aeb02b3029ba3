// A state's directory: the daemon's files and, beside them, the state's children and users' files.
// That of a snapshot has what can be read alone, and nothing changes in it.
#pragma once

#include "fs/nodes/state_container.h"

namespace kvfs::fs {

class StateDir : public StateContainer {
 public:
  StateDir(Context& context, StateId state, EntryPlace place, bool snapshot);

  Result<Attributes> attributes() override;
  Caching caching() const override { return {kOfStates, kOfStates}; }
  StateId state() const override { return container(); }
  std::optional<EntryPlace> entry() const override { return place_; }
  void change(const Changes& changes, Done done) override;

  Result<NodePtr> parent() override;
  Result<Ino> parent_ino() override;
  Result<NodePtr> lookup(std::string_view name) override;
  Result<std::vector<Entry>> list() override;
  bool at_rest(const std::vector<Entry>& listed) override;
  bool lists_attributes(const Entry& entry) const override;
  void make_directory(const std::string& name, const Caller& caller, Answer<NodePtr> done) override;
  void remove_directory(const std::string& name, Done done) override;
  void remove_file(const std::string& name, Done done) override;
  void create_file(const std::string& name, const Creation& how, Answer<Created> done) override;
  bool yields(std::string_view name) override;
  Result<store::FilePlace> file_place(const std::string& name) override;

 protected:
  void take(StateContainer& from, const std::string& name, const std::string& new_name,
            bool replace, Done done) override;

 private:
  bool has_staged_kv() const;

  const EntryPlace place_;  // where it was looked up
};

// The directory node of a state, wherever it is now.
Result<NodePtr> state_dir(Context& context, StateId state);

}  // namespace kvfs::fs

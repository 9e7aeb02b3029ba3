// A directory that the daemon makes in every state: owner and mode are the state's.
#pragma once

#include "fs/context.h"
#include "fs/node.h"

namespace kvfs::fs {

class PartDirectory : public Directory {
 public:
  PartDirectory(Context& context, StateId state, StatePart part);

  Result<Attributes> attributes() override;
  Caching caching() const override { return {kOfStates, kOfStates}; }
  StateId state() const override { return state_; }
  void change(const Changes& changes, Done done) override;
  Result<NodePtr> parent() override;
  Result<Ino> parent_ino() override { return ino_of(state_, StatePart::kDirectory); }

 protected:
  Context& context() const { return context_; }
  StatePart part() const { return part_; }
  Status writable() const;  // kPermission in a snapshot

 private:
  Context& context_;
  const StateId state_;
  const StatePart part_;
};

}  // namespace kvfs::fs

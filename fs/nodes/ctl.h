// ctl: commands, one a line: `step N`, `cancel JOB`, `prune METHOD k=v…`, `rollback N` (or
// @SNAPSHOT), `pin`, `unpin`. Each complete line is accepted or refused by the write that completes
// it; what is left without a newline, by the close. Reads as empty.
#pragma once

#include "fs/context.h"
#include "fs/node.h"

namespace kvfs::fs {

class Ctl : public File {
 public:
  Ctl(Context& context, StateId state)
      : File(ino_of(state, StatePart::kCtl)), context_(context), state_(state) {}

  Result<Attributes> attributes() override;
  Caching caching() const override { return {.entry = 1, .attributes = 1}; }
  StateId state() const override { return state_; }
  void change(const Changes& /*changes*/, Done done) override { done({}); }
  Result<std::unique_ptr<Handle>> open(int flags) override;

 private:
  Context& context_;
  const StateId state_;
};

}  // namespace kvfs::fs

// replies/JOB: the reply as it grows. A read at the end of a running one is parked until there is
// more: no worker waits.
#pragma once

#include <string>

#include "fs/context.h"
#include "fs/node.h"

namespace kvfs::fs {

class ReplyFile : public File {
 public:
  ReplyFile(Context& context, Ino ino, StateId state, std::string job);

  bool is(StateId state, const std::string& job) const { return state == state_ && job == job_; }
  Result<Attributes> attributes() override;
  StateId state() const override { return state_; }
  void change(const Changes& changes, Done done) override;
  Result<std::unique_ptr<Handle>> open(int flags) override;

 private:
  Context& context_;
  const StateId state_;
  const std::string job_;
};

}  // namespace kvfs::fs

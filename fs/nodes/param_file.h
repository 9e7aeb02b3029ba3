// params/NAME: one value and a newline. What is written holds when close returns, or close says why
// not and the old value stays.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "fs/context.h"
#include "fs/node.h"

namespace kvfs::fs {

class ParamFile : public File {
 public:
  // place: in sched::param_table().
  ParamFile(Context& context, StateId state, std::size_t place);

  Result<Attributes> attributes() override;
  Caching caching() const override { return {.entry = 0, .attributes = kForThisCall}; }
  StateId state() const override { return state_; }
  void change(const Changes& changes, Done done) override;
  Result<std::unique_ptr<Handle>> open(int flags) override;

 private:
  Context& context_;
  const StateId state_;
  const std::size_t place_;
};

std::shared_ptr<ParamFile> param_file(Context& context, StateId state, std::string_view name);

// What the file reads: the value that is set, else the default.
Result<std::string> param_text(Context& context, StateId state, std::string_view name);

// kInvalid, noted for `status`, unless there is such a parameter.
Status known_param(Context& context, StateId state, const std::string& name);

// Sets it; a refusal is noted for `status`.
void set_param(Context& context, StateId state, const std::string& name, const std::string& value,
               Done done, std::int64_t changed_ns = 0);

}  // namespace kvfs::fs

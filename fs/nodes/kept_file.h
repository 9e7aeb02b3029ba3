// A reply that came with a copy: kept as it is, and no job's.
#pragma once

#include <string>

#include "fs/context.h"
#include "fs/node.h"

namespace kvfs::fs {

class KeptFile : public File {
 public:
  KeptFile(Context& context, Ino ino, StateId state, store::FileArea area, std::string name)
      : File(ino), context_(context), state_(state), area_(area), name_(std::move(name)) {}

  Result<Attributes> attributes() override;
  StateId state() const override { return state_; }
  void change(const Changes& changes, Done done) override;
  Result<std::unique_ptr<Handle>> open(int flags) override;

 private:
  Context& context_;
  const StateId state_;
  const store::FileArea area_;
  const std::string name_;
};

// Keeps it; on disk soon.
void keep(Context& context, StateId state, store::FileArea area, const std::string& name,
          std::string content, std::int64_t modified_ns, Done done);

// An open file whose contents are kept when it is closed. `text`: what it begins as.
std::unique_ptr<Handle> keeping_handle(Context& context, StateId state, store::FileArea area,
                                       std::string name, std::string text);

// The state's `status` of before it was copied, kept under this name.
inline constexpr char kKeptStatus[] = "status";

}  // namespace kvfs::fs

// A file whose text the daemon makes: README, models/NAME/*, and the two kinds of `status`. What an
// open file reads is the text of the moment it was opened.
#pragma once

#include <functional>
#include <string>

#include "fs/context.h"
#include "fs/node.h"

namespace kvfs::fs {

class GeneratedFile : public File {
 public:
  using Producer = std::function<Result<std::string>()>;
  using Owner = std::function<Result<Attributes>()>;  // all but the size

  enum class Kind { kConstant, kChanging };
  GeneratedFile(Ino ino, Kind kind, StateId state, Owner owner, Producer producer);

  Result<Attributes> attributes() override;
  Caching caching() const override;
  StateId state() const override { return state_; }
  void change(const Changes& changes, Done done) override;
  Result<std::unique_ptr<Handle>> open(int flags) override;

 private:
  const Kind kind_;
  const StateId state_;
  const Owner owner_;
  const Producer producer_;
};

// Owned by the daemon, 0444, of the time it started.
GeneratedFile::Owner daemon_file(const Context& context);

}  // namespace kvfs::fs

// MOUNT/: README, status, bundles/, models/, states/.
#pragma once

#include "fs/context.h"
#include "fs/node.h"

namespace kvfs::fs {

class Root : public Directory {
 public:
  explicit Root(Context& context) : Directory(ino_of(Fixed::kRoot)), context_(context) {}

  Result<Attributes> attributes() override;
  Caching caching() const override { return {kUntilTold, kUntilTold}; }
  Result<NodePtr> parent() override { return shared_from_this(); }
  Result<NodePtr> lookup(std::string_view name) override;
  Result<std::vector<Entry>> list() override;

 private:
  Context& context_;
};

// A directory of the daemon's own: 0555 and its owner, of the time it started.
Attributes daemon_directory(const Context& context);

tl::unexpected<Error> no_such_file(std::string_view name);

}  // namespace kvfs::fs

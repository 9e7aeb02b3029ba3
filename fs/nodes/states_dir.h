// states/: every directory in it is a state. Anybody may make one, as in /tmp: what is in a state
// is its owner's.
#pragma once

#include "fs/nodes/state_container.h"

namespace kvfs::fs {

class StatesDir : public StateContainer {
 public:
  explicit StatesDir(Context& context)
      : StateContainer(context, ino_of(Fixed::kStates), StateId{}, false) {}
  Result<Attributes> attributes() override;
  Caching caching() const override { return {kUntilTold, 0}; }
  Result<NodePtr> parent() override;
};

}  // namespace kvfs::fs

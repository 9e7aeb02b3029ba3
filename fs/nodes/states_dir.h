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
  // Without attributes to believe the kernel asks for them at every name below.
  Caching caching() const override { return {kUntilTold, 1}; }
  Result<NodePtr> parent() override;
};

}  // namespace kvfs::fs

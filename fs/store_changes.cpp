#include "fs/store_changes.h"

namespace kvfs::fs {

void heed(Context& context, const store::Change& change) {
  const bool staged = change.kind == store::Change::Kind::kStaged;
  for (const StateId directory : change.directories) {
    // states/ is read anew each time.
    if (!directory) continue;
    context.names_changed(ino_of(directory, StatePart::kDirectory));
    if (staged) context.names_changed(ino_of(directory, StatePart::kKv));
  }
  if (change.kind == store::Change::Kind::kAdvanced) {
    for (const StatePart part : {StatePart::kDirectory, StatePart::kKv}) {
      context.listings.changed(ino_of(change.state, part));  // Mount::advanced() tells it
    }
  }
}

}  // namespace kvfs::fs

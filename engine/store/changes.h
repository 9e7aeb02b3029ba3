// What committed transactions changed, for those who watch the store: which states, jobs and users'
// files came, went and moved. Derived inside the transaction that did it.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/store/records.h"

namespace kvfs::store {

struct Change {
  enum class Kind {
    kCreated,  // a state, a fork, a snapshot
    kRemoved,
    kRenamed,
    kChanged,   // its params, mode, owner or pin
    kAdvanced,  // it has another version
    kJob,       // came, or its status changed
    kFileCreated,
    kFileRenamed,
    kFileRemoved,
    kStaged,  // a file that is on its way to become the state's: no event
  };
  Kind kind = Kind::kChanged;
  StateId state;       // of a file: the state it is beside; none: states/ itself
  std::string path;    // of the state: names from states/ on, "a/b"; of a snapshot "a@v1"
  std::string before;  // kRenamed: its path; kFileRenamed: "a/b/name", as it was
  VersionId version;   // kAdvanced; none: it is empty now
  JobRecord job;       // kJob, without prompt and params
  std::string file;    // a file's name
  std::vector<StateId> directories = {};  // in which names came, went or changed; none: states/
};

std::string_view name_of(Change::Kind kind);  // "created", …, "file-removed"

// Called on the store's writer thread when readers see the change, before those who wait for it
// hear of it: must return at once and not write. On disk then, but for what is kept soon.
using Watcher = std::function<void(const Change&)>;

}  // namespace kvfs::store

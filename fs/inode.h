// Inode numbers: composed of the store's ids, so that they are the same after a restart and never
// name another thing. Nodes without an id of their own (staged files) get numbers by arrival that
// begin past those of earlier daemons.
//
//   0 | kind:7 | number:40 | index:16     fixed nodes, models, states' directories and files, what
//                                         users left there
//   0 | kind:7 | number:56                replies (a hash of state and name), numbers by arrival
//   1 | state:25 | version:30 | index:8   files of a version, apart for each state that shares it:
//                                         owner, mode and mtime are the state's
// Versions whose ids outgrow that get numbers by arrival: right, but not the same after a restart.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <string_view>

#include "codec/base/ids.h"
#include "engine/store/records.h"

namespace kvfs::fs {

using Ino = std::uint64_t;

// Numbers are seen outside: never renumber.
enum class Fixed : std::uint16_t { kRoot = 1, kReadme = 2, kStatus = 3, kModels = 4, kStates = 5, kBundles = 6 };
enum class InoKind : std::uint8_t {
  kFixed = 0,
  kModel = 1,
  kState = 2,
  kReply = 3,
  kArrival = 4,
  kFile = 5,
  kVersion = 0x80
};
enum class ModelPart : std::uint16_t { kDirectory = 0, kConfig = 1, kFingerprint = 2, kInfo = 3 };
enum class StatePart : std::uint16_t {
  kDirectory = 0,
  kKv = 1,
  kParams = 2,
  kFeed = 3,
  kContinue = 4,
  kAsk = 5,
  kReplies = 6,
  kStatus = 7,
  kCtl = 8,
  kSnap = 9,
  kBundles = 10,
  kFirstParam = 0x100  // + place in sched::param_table()
};
using VersionPart = store::DataPart;
using store::layer_part;

constexpr StatePart param_part(std::size_t place) {
  return static_cast<StatePart>(static_cast<std::size_t>(StatePart::kFirstParam) + place);
}

Ino ino_of(Fixed node);
Ino ino_of(std::string_view model, ModelPart part);
Ino ino_of(StateId state, StatePart part);
Ino reply_ino(StateId state, std::string_view name);
Ino ino_of(FileId file);
std::optional<Ino> ino_of(StateId state, VersionId version, VersionPart part);

// What a number says; for kinds that are a hash or a count only the kind.
struct InoParts {
  InoKind kind = InoKind::kFixed;
  std::uint64_t number = 0;
  StateId state;
  VersionId version;
  std::uint16_t index = 0;
};
InoParts parts_of(Ino ino);

// Any thread.
class InoSource {
 public:
  InoSource();
  Ino next();

 private:
  std::atomic<std::uint64_t> next_;
};

}  // namespace kvfs::fs

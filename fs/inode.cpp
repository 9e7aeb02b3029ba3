#include "fs/inode.h"

#include <chrono>

namespace kvfs::fs {
namespace {

constexpr int kKindShift = 56;
constexpr int kNumberShift = 16;
constexpr std::uint64_t kNumberMask = (std::uint64_t{1} << 40) - 1;
constexpr std::uint64_t kWideMask = (std::uint64_t{1} << 56) - 1;

constexpr int kStateBits = 25, kVersionBits = 30, kIndexBits = 8;
constexpr int kVersionShift = kIndexBits;
constexpr int kStateShift = kIndexBits + kVersionBits;
constexpr Ino kVersionFlag = Ino{1} << 63;

constexpr std::uint64_t mask(int bits) { return (std::uint64_t{1} << bits) - 1; }

Ino compose(InoKind kind, std::uint64_t number, std::uint16_t index) {
  return Ino{static_cast<std::uint8_t>(kind)} << kKindShift |
         (number & kNumberMask) << kNumberShift | index;
}

// FNV-1a: all that is asked of it is that a few names of one directory differ; a node that finds
// its number taken by another takes one by arrival.
std::uint64_t hash(std::string_view text, std::uint64_t seed) {
  std::uint64_t h = 0xcbf29ce484222325ULL ^ (seed * 0x9e3779b97f4a7c15ULL);
  for (const char c : text) {
    h ^= static_cast<unsigned char>(c);
    h *= 0x100000001b3ULL;
  }
  return h ^ h >> 29;
}

}  // namespace

Ino ino_of(Fixed node) { return static_cast<Ino>(node); }

Ino ino_of(std::string_view model, ModelPart part) {
  return compose(InoKind::kModel, hash(model, 0), static_cast<std::uint16_t>(part));
}

Ino ino_of(StateId state, StatePart part) {
  return compose(InoKind::kState, state.value, static_cast<std::uint16_t>(part));
}

Ino ino_of(FileId file) { return compose(InoKind::kFile, file.value, 0); }

Ino reply_ino(StateId state, std::string_view name) {
  return Ino{static_cast<std::uint8_t>(InoKind::kReply)} << kKindShift |
         (hash(name, state.value) & kWideMask);
}

std::optional<Ino> ino_of(StateId state, VersionId version, VersionPart part) {
  const auto index = static_cast<std::uint64_t>(part);
  if (state.value > mask(kStateBits) || version.value > mask(kVersionBits) ||
      index > mask(kIndexBits)) {
    return std::nullopt;
  }
  return kVersionFlag | state.value << kStateShift | version.value << kVersionShift | index;
}

InoParts parts_of(Ino ino) {
  InoParts parts;
  if ((ino & kVersionFlag) != 0) {
    parts.kind = InoKind::kVersion;
    parts.state = StateId{ino >> kStateShift & mask(kStateBits)};
    parts.version = VersionId{ino >> kVersionShift & mask(kVersionBits)};
    parts.index = static_cast<std::uint16_t>(ino & mask(kIndexBits));
    return parts;
  }
  parts.kind = static_cast<InoKind>(ino >> kKindShift);
  parts.number = ino >> kNumberShift & kNumberMask;
  parts.index = static_cast<std::uint16_t>(ino & mask(kNumberShift));
  if (parts.kind == InoKind::kState) parts.state = StateId{parts.number};
  return parts;
}

// Seconds since the epoch, then 24 bits of count: a later daemon begins higher unless this one
// hands out 16 million numbers a second.
InoSource::InoSource() {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(
                           std::chrono::system_clock::now().time_since_epoch())
                           .count();
  next_ = static_cast<std::uint64_t>(seconds) << 24;
}

Ino InoSource::next() {
  return Ino{static_cast<std::uint8_t>(InoKind::kArrival)} << kKindShift |
         (next_.fetch_add(1, std::memory_order_relaxed) & kWideMask);
}

}  // namespace kvfs::fs

// Files that users are writing, or have written, into spools and params/: who is where, and how
// much memory that takes. In memory alone: a job is durable from its submission on.
//
// Any thread; one lock, taken before no other (a StagedFile's own lock is never held meanwhile).
// Ownership: files are shared by this table (while they are listed), the node table and handles.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "fs/inode.h"

namespace kvfs::fs {

class StagedFile;

struct Place {  // a directory that files can be written into
  StateId state;
  StatePart part = StatePart::kAsk;
  auto operator<=>(const Place&) const = default;
  Ino ino() const { return ino_of(state, part); }
  bool is_spool() const { return part != StatePart::kParams; }
};

class Staging {
 public:
  static constexpr std::uint64_t kFileBytes = std::uint64_t{64} << 20;
  static constexpr std::uint64_t kAllBytes = std::uint64_t{512} << 20;

  std::shared_ptr<StagedFile> find(const Place& place, std::string_view name) const;
  std::vector<std::shared_ptr<StagedFile>> list(const Place& place) const;
  std::vector<std::shared_ptr<StagedFile>> all() const;
  // The one listed under its name from now on: the file, or the one that was there.
  std::shared_ptr<StagedFile> add(std::shared_ptr<StagedFile> file);
  // Only while it is this file that is listed there.
  void remove(const Place& place, const std::string& name, const StagedFile* file);
  void remove(StateId state);

  // False when all staged files together would take more than kAllBytes.
  bool take(std::uint64_t bytes);
  void give(std::uint64_t bytes);

 private:
  using Files = std::map<std::string, std::shared_ptr<StagedFile>, std::less<>>;
  mutable std::mutex mutex_;  // guards everything below
  std::map<Place, Files> places_;
  std::uint64_t bytes_ = 0;
};

}  // namespace kvfs::fs

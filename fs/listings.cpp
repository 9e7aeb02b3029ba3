#include "fs/listings.h"

#include <xxhash.h>

#include <algorithm>
#include <iterator>
#include <utility>

namespace kvfs::fs {
namespace {

constexpr std::size_t kMostKept = 64;
constexpr std::size_t kMostEntries = 1'000'000;

}  // namespace

std::uint64_t place_of(std::string_view name) {
  if (name == ".") return 1;
  if (name == "..") return 2;
  constexpr std::uint64_t kMask = (std::uint64_t{1} << 62) - 1;  // off_t is signed
  return 3 + (XXH3_64bits(name.data(), name.size()) & kMask);
}

Result<Listing> list_of(Directory& directory) {
  KVFS_ASSIGN(std::vector<Entry> entries, directory.list());
  const auto parent = directory.parent();
  entries.push_back({".", true, directory.ino()});
  entries.push_back({"..", true, parent ? (*parent)->ino() : directory.ino()});
  Listing listing;
  listing.reserve(entries.size());
  for (Entry& entry : entries) {
    const std::uint64_t place = place_of(entry.name);
    listing.push_back({place, std::move(entry)});
  }
  std::ranges::sort(listing, {}, &Listed::place);
  return listing;
}

void Listings::keep(Ino directory, std::shared_ptr<const Listing> listing) {
  const std::lock_guard lock(mutex_);
  drop_locked(directory);
  entries_ += listing->size();
  kept_.push_front({directory, std::move(listing)});
  while (kept_.size() > kMostKept || (entries_ > kMostEntries && kept_.size() > 1)) {
    drop_locked(kept_.back().directory);
  }
}

std::shared_ptr<const Listing> Listings::find(Ino directory) const {
  const std::lock_guard lock(mutex_);
  const auto it = std::ranges::find(kept_, directory, &Kept::directory);
  return it == kept_.end() ? nullptr : it->listing;
}

void Listings::drop(Ino directory) {
  const std::lock_guard lock(mutex_);
  drop_locked(directory);
}

void Listings::drop_locked(Ino directory) {
  const auto it = std::ranges::find(kept_, directory, &Kept::directory);
  if (it == kept_.end()) return;
  entries_ -= it->listing->size();
  kept_.erase(it);
}

}  // namespace kvfs::fs

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

std::size_t Listings::slot_of(Ino directory) {
  return XXH3_64bits(&directory, sizeof directory) % kSlots;
}

bool Listings::changed(Ino directory) {
  return (names_[slot_of(directory)].fetch_add(2) & kRead) != 0;
}

bool Listings::lasts(Ino directory, const Listing& listing) const {
  return listing.at_rest && names_[slot_of(directory)] == listing.names;
}

Result<Listing> Listings::read(Directory& directory) {
  Listing listing{.names = names_[slot_of(directory.ino())].fetch_or(kRead) | kRead};
  KVFS_ASSIGN(std::vector<Entry> entries, directory.list());
  listing.at_rest = directory.at_rest(entries);
  const auto parent = directory.parent_ino();
  entries.push_back({".", true, directory.ino()});
  entries.push_back({"..", true, parent.value_or(directory.ino())});
  listing.entries.reserve(entries.size());
  for (Entry& entry : entries) {
    const std::uint64_t place = place_of(entry.name);
    listing.entries.push_back({place, std::move(entry)});
  }
  std::ranges::sort(listing.entries, {}, &Listed::place);
  return listing;
}

std::shared_ptr<const Listing> Listings::keep(Ino directory, Listing listing) {
  const std::lock_guard lock(mutex_);
  if (const auto it = std::ranges::find(kept_, directory, &Kept::directory); it != kept_.end()) {
    // Who reads it goes on in this one, and the kernel would keep a part of each.
    if (it->listing->names != listing.names) listing.at_rest = false;
    drop_locked(directory);
  }
  auto kept = std::make_shared<const Listing>(std::move(listing));
  entries_ += kept->entries.size();
  kept_.push_front({directory, kept});
  while (kept_.size() > kMostKept || (entries_ > kMostEntries && kept_.size() > 1)) {
    drop_locked(kept_.back().directory);
  }
  return kept;
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
  entries_ -= it->listing->entries.size();
  kept_.erase(it);
}

}  // namespace kvfs::fs

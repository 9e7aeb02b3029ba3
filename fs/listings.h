// What directories held when the kernel began to read them, while it reads on.
//
// An entry's place, which the kernel names to go on behind it, follows from the entry's name alone.
// So a reading that goes on after names came or went, or after what is kept here was dropped, gives
// no entry twice and misses none that was there all the time; and no directory has to be opened or
// released. What is kept spares those who read a large directory in parts its listing for each.
//
// Any thread; one lock.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

#include "fs/node.h"

namespace kvfs::fs {

struct Listed {
  std::uint64_t place = 0;
  Entry entry;
};
struct Listing {
  std::vector<Listed> entries;  // ascending place
  bool at_rest = false;         // when it was made; see Directory
  std::uint64_t names = 0;      // Listings::names() before it was made
};

// "." is at 1, ".." at 2, the rest behind.
std::uint64_t place_of(std::string_view name);

class Listings {
 public:
  // What the directory holds, with "." and "..".
  Result<Listing> read(Directory& directory);
  // Names in it came, went, or stand for something else: the kernel may not keep what was read
  // before. False: nothing was read of it, so that nobody has to be told.
  bool changed(Ino directory);
  // Whether it may keep what was read, now that it has come to the end of it.
  bool lasts(Ino directory, const Listing& listing) const;

  std::shared_ptr<const Listing> keep(Ino directory, Listing listing);
  std::shared_ptr<const Listing> find(Ino directory) const;  // null: it is not kept
  void drop(Ino directory);

 private:
  struct Kept {
    Ino directory = 0;
    std::shared_ptr<const Listing> listing;  // shared with the requests that read it
  };
  void drop_locked(Ino directory);
  static std::size_t slot_of(Ino directory);

  // Twice how often names changed in a directory, and kRead once it was read; many share a slot,
  // and then one of them is read again for nothing.
  static constexpr std::uint64_t kRead = 1;
  static constexpr std::size_t kSlots = 16384;
  std::array<std::atomic<std::uint64_t>, kSlots> names_ = {};

  mutable std::mutex mutex_;  // guards everything below
  std::list<Kept> kept_;      // newest first; few
  std::size_t entries_ = 0;   // of all
};

}  // namespace kvfs::fs

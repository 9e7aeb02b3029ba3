// What directories held when the kernel began to read them, while it reads on.
//
// An entry's place, which the kernel names to go on behind it, follows from the entry's name alone.
// So a reading that goes on after names came or went, or after what is kept here was dropped, gives
// no entry twice and misses none that was there all the time; and no directory has to be opened or
// released. What is kept spares those who read a large directory in parts its listing for each.
//
// Any thread; one lock.
#pragma once

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
using Listing = std::vector<Listed>;  // ascending place

// "." is at 1, ".." at 2, the rest behind.
std::uint64_t place_of(std::string_view name);

// With "." and "..".
Result<Listing> list_of(Directory& directory);

class Listings {
 public:
  void keep(Ino directory, std::shared_ptr<const Listing> listing);
  std::shared_ptr<const Listing> find(Ino directory) const;  // null: it is not kept
  void drop(Ino directory);

 private:
  struct Kept {
    Ino directory = 0;
    std::shared_ptr<const Listing> listing;  // shared with the requests that read it
  };
  void drop_locked(Ino directory);

  mutable std::mutex mutex_;  // guards everything below
  std::list<Kept> kept_;      // newest first; few
  std::size_t entries_ = 0;   // of all
};

}  // namespace kvfs::fs

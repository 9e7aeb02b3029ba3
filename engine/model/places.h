// Where a sequence's entries go when they are moved to consecutive positions (Model::compact).
// Plain values, any thread.
#pragma once

#include <span>
#include <vector>

#include "codec/base/ids.h"
#include "codec/base/result.h"

namespace kvfs::model {

// Where a head's entries lie and the first of the places that they go to.
struct HeadPlaces {
  std::vector<Position> from;  // ascending
  Position first = 0;

  bool moves() const;
};

struct Places {
  std::vector<std::vector<HeadPlaces>> layers;  // [layer][KV head]
  Position next_pos = 0;
  bool dense = true;  // every head has an entry at each position

  bool moves() const;
};

// What of a model decides whether keys can be turned to other positions.
struct Turnable {
  bool learned_positions;
  std::vector<int> windows;  // by layer; 0: none
};

// positions: [layer][KV head][entry], of a sequence that ends at next_pos. kUnsupported: learned
// positions; a sliding window that would see entries again that it had left behind.
Result<Places> find_places(std::vector<std::vector<std::vector<Position>>> positions,
                           Position next_pos, const Turnable& model);

}  // namespace kvfs::model

// Rows that the open write transaction has changed: what readers see over the map until it commits.
//
// One is made by the writer thread and never changed once readers may have it; Txns share it with
// the Environment, so what they read from it holds until they end.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "codec/base/bytes.h"

namespace kvfs::store {

enum class Table : std::uint8_t;
inline constexpr int kTables = 18;

struct Overlay {
  struct AsLmdbOrders {  // by bytes, the shorter first
    using is_transparent = void;
    bool operator()(ByteSpan a, ByteSpan b) const {
      return std::ranges::lexicographical_compare(a, b);
    }
  };
  using Row = std::optional<Bytes>;  // nothing: it was erased
  using Rows = std::map<Bytes, Row, AsLmdbOrders>;

  const Rows& of(Table table) const { return tables[static_cast<std::size_t>(table)]; }
  Rows& of(Table table) { return tables[static_cast<std::size_t>(table)]; }

  std::uint64_t base =
      0;  // LMDB's number of the commit that it lies over; of a later one it is part
  std::size_t bytes = 0;  // about, of all rows
  std::array<Rows, kTables> tables;
};

// Keys that a transaction changed, to be told apart from what it only read.
using TouchedKeys = std::vector<std::pair<Table, Bytes>>;

}  // namespace kvfs::store

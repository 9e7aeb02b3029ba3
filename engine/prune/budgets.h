// What a method's words promise, before anything is kept. Pure functions, any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "engine/prune/methods.h"

namespace kvfs::prune {

// Entries of a head that the method leaves in each of so many layers, bottom to top, where a head
// has so many entries; may be more than these.
std::vector<std::int64_t> budgets_of(const Method& method, int layers, std::int64_t entries);

// The newest entries that its words keep whatever their scores; none: it has no such word.
std::optional<int> kept_window_of(const Method& method);

// What its `keep=` says; null: it has none.
const Amount* amount_of(const Method& method);
Amount* amount_of(Method& method);

}  // namespace kvfs::prune

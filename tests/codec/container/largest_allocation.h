// The largest single operator new of this test binary since the last reset: a hostile length that
// is believed shows here, even where the memory would have been had.
#pragma once

#include <cstddef>

namespace kvfs {

void reset_largest_allocation();
std::size_t largest_allocation();

}  // namespace kvfs

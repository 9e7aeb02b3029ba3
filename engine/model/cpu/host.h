// What this machine leaves to a model: cores and memory, limits of its control group included.
#pragma once

#include <cstdint>

namespace kvfs::model::cpu {

int physical_cores();              // that this process may use, at least 1
std::uint64_t memory_total();      // bytes
std::uint64_t memory_available();  // bytes that can be taken without swapping

}  // namespace kvfs::model::cpu

// What this machine leaves to a model: cores and memory, limits of its control group included.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace kvfs::model::cpu {

int physical_cores();  // that this process may use, at least 1
// The calling thread runs on one hardware thread of each physical core from now on, wherever the
// system likes: threads that all do so never share a core's vector units while another is free.
void keep_to_physical_cores();
// Of these CPUs, the first of each core; siblings: a CPU's thread_siblings_list, "" where unknown.
std::vector<int> first_of_each_core(const std::vector<int>& cpus,
                                    const std::function<std::string(int cpu)>& siblings);
std::uint64_t memory_total();      // bytes
std::uint64_t memory_available();  // bytes that can be taken without swapping

}  // namespace kvfs::model::cpu

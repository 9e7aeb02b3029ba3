// What this machine leaves to a model: cores and memory, within the limits of the process's control
// groups (version 2; its own and those it lies in: the tightest binds). Any thread; what cannot be
// read is no limit.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace kvfs::model::cpu {

struct HostFiles {  // tests have them elsewhere
  std::filesystem::path proc = "/proc";
  std::filesystem::path groups = "/sys/fs/cgroup";
};

int physical_cores(const HostFiles& files = {});  // that this process may use, at least 1
// The calling thread runs on one hardware thread of each physical core from now on, wherever the
// system likes: threads that all do so never share a core's vector units while another is free.
void keep_to_physical_cores();
// Of these CPUs, the first of each core; siblings: a CPU's thread_siblings_list, "" where unknown.
std::vector<int> first_of_each_core(const std::vector<int>& cpus,
                                    const std::function<std::string(int cpu)>& siblings);
std::uint64_t memory_total(const HostFiles& files = {});      // bytes
std::uint64_t memory_available(const HostFiles& files = {});  // bytes to be had without swapping

}  // namespace kvfs::model::cpu

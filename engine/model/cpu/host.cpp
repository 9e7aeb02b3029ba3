#include "engine/model/cpu/host.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace kvfs::model::cpu {
namespace {

constexpr std::uint64_t kNoLimit = std::numeric_limits<std::uint64_t>::max();

namespace fs = std::filesystem;

std::string first_line(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::uint64_t number_in(const fs::path& path) {  // "max" and unreadable: no limit
  std::istringstream line(first_line(path));
  std::uint64_t value = 0;
  return line >> value ? value : kNoLimit;
}

// Of a file of lines "key value" or "key: value"; 0 when it is not there.
std::uint64_t value_of(const fs::path& path, const std::string& key) {
  std::ifstream file(path);
  std::string name;
  std::uint64_t value = 0;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    if (words >> name >> value && (name == key || name == key + ":")) return value;
  }
  return 0;
}

std::uint64_t meminfo(const HostFiles& files, const std::string& key) {  // bytes
  return value_of(files.proc / "meminfo", key) * 1024;
}

// The process's group first, then those it lies in. In a container without a namespace of its own
// the first are not to be seen, but its root is.
std::vector<fs::path> groups_of(const HostFiles& files) {
  fs::path own;
  std::ifstream file(files.proc / "self/cgroup");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("0::/", 0) == 0) own = line.substr(4);
  }
  std::vector<fs::path> groups;
  for (; !own.empty(); own = own.parent_path()) groups.push_back(files.groups / own);
  groups.push_back(files.groups);
  return groups;
}

std::vector<int> allowed_cpus() {
  std::vector<int> cpus;
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &allowed)) cpus.push_back(cpu);
  }
  return cpus;
}

std::string siblings_of(int cpu) {
  return first_line("/sys/devices/system/cpu/cpu" + std::to_string(cpu) +
                    "/topology/thread_siblings_list");
}

// Whole cores that the groups' quotas allow.
int quota_cores(const HostFiles& files) {
  int cores = std::numeric_limits<int>::max();
  for (const fs::path& group : groups_of(files)) {
    std::istringstream line(first_line(group / "cpu.max"));
    double quota = 0;
    double period = 0;
    if (line >> quota >> period && period > 0)
      cores = std::min(cores, std::max(1, static_cast<int>(std::ceil(quota / period))));
  }
  return cores;
}

// What a group may still take. Cached files count as used there, but give way.
std::uint64_t left_in(const fs::path& group, std::uint64_t limit) {
  const std::uint64_t used = number_in(group / "memory.current");
  if (used == kNoLimit) return limit;
  const std::uint64_t files = value_of(group / "memory.stat", "active_file") +
                              value_of(group / "memory.stat", "inactive_file");
  return limit - std::min(limit, used - std::min(used, files));
}

}  // namespace

std::vector<int> first_of_each_core(const std::vector<int>& cpus,
                                    const std::function<std::string(int cpu)>& siblings) {
  std::set<std::string> cores;  // by the list of threads that share one
  std::vector<int> first;
  for (const int cpu : cpus) {
    const std::string list = siblings(cpu);
    if (cores.insert(list.empty() ? std::to_string(cpu) : list).second) first.push_back(cpu);
  }
  return first;
}

int physical_cores(const HostFiles& files) {
  const auto cores = static_cast<int>(first_of_each_core(allowed_cpus(), siblings_of).size());
  return std::max(1, std::min(cores, quota_cores(files)));
}

void keep_to_physical_cores() {
  const std::vector<int> allowed = allowed_cpus();
  const std::vector<int> cores = first_of_each_core(allowed, siblings_of);
  if (cores.empty() || cores.size() == allowed.size()) return;
  cpu_set_t wanted;
  CPU_ZERO(&wanted);
  for (const int cpu : cores) CPU_SET(cpu, &wanted);
  sched_setaffinity(0, sizeof wanted, &wanted);  // refused: it runs where it ran
}

std::uint64_t memory_total(const HostFiles& files) {
  std::uint64_t total = meminfo(files, "MemTotal");
  for (const fs::path& group : groups_of(files))
    total = std::min(total, number_in(group / "memory.max"));
  return total;
}

std::uint64_t memory_available(const HostFiles& files) {
  std::uint64_t available = meminfo(files, "MemAvailable");
  for (const fs::path& group : groups_of(files)) {
    const std::uint64_t limit = number_in(group / "memory.max");
    if (limit != kNoLimit) available = std::min(available, left_in(group, limit));
  }
  return available;
}

}  // namespace kvfs::model::cpu

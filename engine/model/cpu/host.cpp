#include "engine/model/cpu/host.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <set>
#include <sstream>
#include <string>

namespace kvfs::model::cpu {
namespace {

constexpr std::uint64_t kNoLimit = std::numeric_limits<std::uint64_t>::max();

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::uint64_t number_in(const std::string& path) {  // "max" and unreadable: no limit
  std::istringstream line(first_line(path));
  std::uint64_t value = 0;
  return line >> value ? value : kNoLimit;
}

std::uint64_t meminfo(const std::string& key) {  // bytes
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(key + ":", 0) == 0) return std::stoull(line.substr(key.size() + 1)) * 1024;
  }
  return 0;
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

// Whole cores that the control group's quota allows.
int quota_cores() {
  std::istringstream line(first_line("/sys/fs/cgroup/cpu.max"));
  double quota = 0;
  double period = 0;
  if (!(line >> quota >> period) || period <= 0) return std::numeric_limits<int>::max();
  return std::max(1, static_cast<int>(std::ceil(quota / period)));
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

int physical_cores() {
  const auto cores = static_cast<int>(first_of_each_core(allowed_cpus(), siblings_of).size());
  return std::max(1, std::min(cores, quota_cores()));
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

std::uint64_t memory_total() {
  return std::min(meminfo("MemTotal"), number_in("/sys/fs/cgroup/memory.max"));
}

std::uint64_t memory_available() {
  std::uint64_t available = meminfo("MemAvailable");
  const std::uint64_t limit = number_in("/sys/fs/cgroup/memory.max");
  const std::uint64_t used = number_in("/sys/fs/cgroup/memory.current");
  if (limit != kNoLimit && used != kNoLimit)
    available = std::min(available, limit - std::min(limit, used));
  return available;
}

}  // namespace kvfs::model::cpu

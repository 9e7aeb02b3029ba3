// kvfs umount [DIR]: stops the daemon and waits until it is gone.
#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "cli/verbs/verbs.h"

namespace kvfs::cli {
namespace {

constexpr auto kMostWait = std::chrono::seconds(8);  // the daemon promises 5
constexpr auto kLookEvery = std::chrono::milliseconds(20);

// A zombie is as good as gone: only its parent has not looked yet.
bool runs(pid_t process) {
  std::ifstream in("/proc/" + std::to_string(process) + "/stat");
  std::string line;
  if (!std::getline(in, line)) return false;
  const std::size_t name_end = line.rfind(')');
  return name_end == std::string::npos || line.substr(name_end + 1, 2) != " Z";
}

class Unmount : public Verb {
 public:
  void options(Options& options) override {
    options.value("DIR", directory_, "refuse unless this is where it is mounted");
  }

  Result<int> run(const Client& client) override {
    KVFS_ASSIGN(const boost::json::object status, client.get("/v1/status"));
    const std::string mount(status.at("mount").as_string());
    if (!directory_.empty()) {
      auto asked = std::filesystem::absolute(directory_).lexically_normal();
      if (!asked.has_filename()) asked = asked.parent_path();
      if (asked != mount) {
        return fail(ErrorCode::kInvalid, "umount " + directory_, "the daemon's mount is " + mount,
                    "name that one, or another daemon with --socket");
      }
    }
    const auto daemon = static_cast<pid_t>(status.at("pid").to_number<int>());
    KVFS_TRY(client.send("POST", "/v1/shutdown", {}));
    const auto deadline = std::chrono::steady_clock::now() + kMostWait;
    // Its process ends after its socket: the store is free when nothing of it is left.
    while (runs(daemon)) {
      if (std::chrono::steady_clock::now() > deadline) {
        return fail(ErrorCode::kBusy, "umount",
                    "process " + std::to_string(daemon) + " has not ended yet",
                    "see its log, then kill it: the store is safe");
      }
      std::this_thread::sleep_for(kLookEvery);
    }
    return 0;
  }

 private:
  std::string directory_;
};

}  // namespace

std::unique_ptr<Verb> make_umount() { return std::make_unique<Unmount>(); }

}  // namespace kvfs::cli

// kvfsd --check: the store's own verifier, run offline.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>

#include "daemon/composition.h"
#include "daemon/launch.h"

namespace kvfs::daemon {
namespace {

Result<store::VerifyReport> verify(const std::filesystem::path& directory) {
  std::error_code error;
  // Opening makes what is missing: a mistyped path must not become an empty, sound store.
  if (!std::filesystem::exists(directory / "data.mdb", error)) {
    return fail(ErrorCode::kNotFound, "store " + directory.string(), "there is none",
                "name the directory with --store");
  }
  KVFS_ASSIGN(const auto store, store::Store::open({.directory = directory}));
  return store->verify();
}

ExitCode check_here(const Config& config) {
  const auto report = verify(config.store);
  if (!report) {
    print_error(report.error());
    return kExitStore;
  }
  std::printf("states %llu\nversions %llu\nblocks %llu\nchunks %llu\n",
              static_cast<unsigned long long>(report->states),
              static_cast<unsigned long long>(report->versions),
              static_cast<unsigned long long>(report->blocks),
              static_cast<unsigned long long>(report->chunks));
  for (const std::string& problem : report->problems) std::printf("problem %s\n", problem.c_str());
  std::printf("%s\n", report->problems.empty() ? "sound" : "damaged");
  if (report->problems.empty()) return kExitOk;
  print_error({ErrorCode::kCorrupt, "store " + config.store.string(),
               std::to_string(report->problems.size()) + " problems",
               "restore it from a copy, or remove the states that are named"});
  return kExitStore;
}

}  // namespace

ExitCode check_store(const Config& config) {
  // In a child: LMDB trusts its file, and a damaged one can take the process with it.
  const pid_t child = ::fork();
  if (child == 0) {
    const ExitCode code = check_here(config);
    std::fflush(stdout);
    ::_exit(code);
  }
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child) {
    print_error({ErrorCode::kIo, "check", "no child process to be had", "try again"});
    return kExitFailure;
  }
  if (WIFEXITED(status)) return static_cast<ExitCode>(WEXITSTATUS(status));
  print_error({ErrorCode::kCorrupt, "store " + config.store.string(),
               "too damaged to be read through", "restore it from a copy"});
  return kExitStore;
}

}  // namespace kvfs::daemon

// The table of verbs, and the way from argv to one of them.
#include <array>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

#include "cli/options.h"
#include "cli/verb.h"
#include "cli/verbs/verbs.h"

namespace kvfs::cli {
namespace {

constexpr std::array kVerbs{
    VerbEntry{"mount", "start a daemon for this user and wait until it answers", make_mount},
    VerbEntry{"umount", "stop the daemon", make_umount},
    VerbEntry{"status", "what the daemon holds and does", make_status},
    VerbEntry{"models", "the models there are", make_models},
    VerbEntry{"ls", "list states", make_ls},
    VerbEntry{"tree", "list states below one another", make_tree},
    VerbEntry{"show", "what a state is", make_show},
    VerbEntry{"new", "make an empty state", make_new},
    VerbEntry{"set", "set a state's parameters", make_set},
    VerbEntry{"fork", "make a new state that knows what another knows", make_fork},
    VerbEntry{"mv", "rename a state", make_mv},
    VerbEntry{"rm", "remove states", make_rm},
    VerbEntry{"snap", "keep what a state knows now under a name", make_snap},
    VerbEntry{"rollback", "let a state forget its last tokens", make_rollback},
    VerbEntry{"events", "what happens to states, jobs and files, as JSON lines", make_events},
    VerbEntry{"log", "what a state knows and its snapshots do", make_log},
    VerbEntry{"export", "write a state to a file", make_export},
    VerbEntry{"import", "make a state of a file", make_import},
    VerbEntry{"feed", "let a state read texts", make_feed},
    VerbEntry{"ask", "ask a state, which stays as it was", make_ask},
    VerbEntry{"continue", "ask a state, which remembers prompt and reply", make_continue},
    VerbEntry{"step", "let a state go on for some tokens", make_step},
    VerbEntry{"prune", "let a state keep a part of its KV", make_prune},
    VerbEntry{"compare", "answer by full and pruned caches, side by side", make_compare},
    VerbEntry{"cancel", "end a job", make_cancel},
};

constexpr int kExitFailure = 1;
constexpr int kExitUsage = 2;

void print_usage_error(const CLI::ParseError& error, const std::string& command) {
  std::fprintf(stderr, "kvfs: command line: %s; see %s --help\n", error.what(), command.c_str());
}

}  // namespace

std::span<const VerbEntry> verbs() { return kVerbs; }

int run(int argc, const char* const* argv) {
  CLI::App app("talks to kvfsd, which keeps what language models have read", "kvfs");
  app.set_version_flag("--version", "kvfs " KVFS_VERSION);
  app.require_subcommand(1);
  std::string socket;
  app.add_option("--socket", socket, "the daemon's socket; else KVFS_SOCKET, else the usual place")
      ->type_name("PATH");
  app.footer("A state is named by its path below states/, or by a path on the mount.");
  std::vector<std::pair<CLI::App*, std::unique_ptr<Verb>>> made;
  for (const VerbEntry& entry : verbs()) {
    CLI::App* sub = app.add_subcommand(entry.name, entry.summary)->fallthrough();
    made.emplace_back(sub, entry.make());
    Options options(*sub);
    made.back().second->options(options);
  }
  try {
    app.parse(argc, const_cast<char**>(argv));
  } catch (const CLI::Success& success) {  // --help, --version
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    std::string command = "kvfs";
    for (const CLI::App* sub : app.get_subcommands()) command += " " + sub->get_name();
    print_usage_error(error, command);
    return kExitUsage;
  }
  const Client client(socket_path(socket));
  for (const auto& [sub, verb] : made) {
    if (!sub->parsed()) continue;
    const Result<int> code = verb->run(client);
    if (code) return *code;
    std::fflush(stdout);
    std::fprintf(stderr, "kvfs: %s\n", code.error().message().c_str());
    return kExitFailure;
  }
  return kExitUsage;
}

}  // namespace kvfs::cli

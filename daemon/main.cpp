// kvfsd: keeps what language models have read, and shows it as a filesystem.
#include <cstdio>

#include "codec/base/log.h"
#include "daemon/composition.h"
#include "daemon/launch.h"
#include "daemon/logging.h"

using namespace kvfs;
using namespace kvfs::daemon;

namespace {

// Everything after the fork.
ExitCode serve(const Config& config, Launch launch) {
  // Where what happens is written down.
  if (Status logging = set_up_logging(config); !logging) {
    return launch.failed({std::move(logging).error(), kExitStore});
  }
  // Signals and the request to end, from the first moment on.
  Lifetime lifetime;
  // The store, the models, the mount, the sockets.
  auto composition = Composition::start(config, lifetime);
  if (!composition) return launch.failed(composition.error());
  // Tell everybody that waits.
  const std::string summary = (*composition)->summary();
  KVFS_INFO("{}", summary);
  notify_manager("READY=1\nSTATUS=" + summary);
  launch.ready();
  // Serve until told to end.
  lifetime.wait();
  // Take it all down in reverse.
  (*composition)->stop();
  KVFS_INFO("shutdown: done");
  return kExitOk;
}

}  // namespace

int main(int argc, char** argv) {
  // What were we told?
  const auto told = read_config(argc, argv, surroundings_of_process());
  if (!told) {
    print_error(told.error());
    return kExitUsage;
  }
  // Something to print and nothing else?
  if (const auto* text = std::get_if<std::string>(&*told)) {
    std::fputs(text->c_str(), stdout);
    return kExitOk;
  }
  const auto& config = std::get<Config>(*told);
  // Only verify?
  if (config.check) return check_store(config);
  // To the background, before there is a thread or an open store.
  if (config.foreground) return serve(config, Launch::in_foreground());
  auto launched = Launch::detach();
  if (const auto* code = std::get_if<ExitCode>(&launched)) return *code;
  return serve(config, std::get<Launch>(std::move(launched)));
}

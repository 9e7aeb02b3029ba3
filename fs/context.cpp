#include "fs/context.h"

#include <unistd.h>

#include <utility>

namespace kvfs::fs {

Context::Context(store::Store& the_store, sched::Scheduler& the_scheduler,
                 sched::Catalog& the_catalog, std::string where,
                 std::filesystem::path store_directory, Behaviour how)
    : store(the_store),
      scheduler(the_scheduler),
      catalog(the_catalog),
      mount_point(std::move(where)),
      store_disk(std::move(store_directory)),
      behaviour(how),
      uid(::getuid()),
      gid(::getgid()),
      started_ns(now_ns()),
      versions(the_store) {}

void Context::names_changed(Ino directory) {
  if (listings.changed(directory)) background_notifier.listing(directory);
}

void reach_disk(Context& context, std::function<void(Status)> done) {
  context.store.write_async([](store::WriteTransaction&) { return Status(); }, std::move(done));
}

}  // namespace kvfs::fs

#include "fs/nodes/spool_dir.h"

#include <utility>

#include "fs/nodes/root.h"
#include "fs/spooler.h"

namespace kvfs::fs {

Result<NodePtr> SpoolDir::lookup(std::string_view name) {
  if (auto file = spooler::find(context(), place(), name)) return file;
  return no_such_file(name);
}

Result<std::vector<Entry>> SpoolDir::list() {
  std::vector<Entry> entries;
  for (const auto& file : spooler::list(context(), place())) {
    entries.push_back({file->name(), false, file->ino()});
  }
  return entries;
}

void SpoolDir::create_file(const std::string& name, const Creation& how, Answer<Created> done) {
  done(create_staged(name, how.flags));
}

void SpoolDir::remove_file(const std::string& name, Done done) {
  auto file = spooler::find(context(), place(), name);
  if (!file) return done(no_such_file(name));
  spooler::remove(context(), std::move(file), std::move(done));
}

void SpoolDir::rename(const std::string& name, Directory& to, const std::string& new_name,
                      bool replace, Done done) {
  auto file = spooler::find(context(), place(), name);
  if (!file) return done(no_such_file(name));
  static_cast<StagingDir&>(to).take(std::move(file), new_name, replace, std::move(done));
}

void SpoolDir::take(std::shared_ptr<StagedFile> file, const std::string& name, bool replace,
                    Done done) {
  spooler::move(context(), std::move(file), place(), name, replace, std::move(done));
}

}  // namespace kvfs::fs

#include "fs/nodes/params_dir.h"

#include <fcntl.h>

#include <utility>

#include "fs/nodes/param_file.h"
#include "fs/nodes/root.h"
#include "fs/scratch_names.h"
#include "fs/spooler.h"

namespace kvfs::fs {

Result<NodePtr> ParamsDir::lookup(std::string_view name) {
  if (auto file = context().staging.find(place(), name)) return file;
  if (context().hidden.hidden(ino(), name)) return no_such_file(name);
  auto param = param_file(context(), state(), name);
  if (!param) return no_such_file(name);
  return param;
}

Result<std::vector<Entry>> ParamsDir::list() {
  std::vector<Entry> entries;
  std::size_t place_in_table = 0;
  for (const auto& spec : sched::param_table()) {
    const Ino number = ino_of(state(), param_part(place_in_table++));
    if (context().hidden.hidden(ino(), spec.name)) continue;
    entries.push_back({std::string(spec.name), false, number});
  }
  for (const auto& file : context().staging.list(place())) {
    entries.push_back({file->name(), false, file->ino()});
  }
  return entries;
}

bool ParamsDir::at_rest(const std::vector<Entry>& listed) {
  return listed.size() == sched::param_table().size() && !context().hidden.any(ino());
}

bool ParamsDir::lists_attributes(const Entry& /*entry*/) const { return false; }

void ParamsDir::create_file(const std::string& name, const Creation& how, Answer<Created> done) {
  done(create(name, how.flags));
}

Result<Created> ParamsDir::create(const std::string& name, int flags) {
  KVFS_TRY(writable());
  if (auto param = param_file(context(), state(), name)) {  // unlinked a moment ago
    context().hidden.show(ino(), name);
    KVFS_ASSIGN(auto handle, param->open(flags | O_TRUNC));
    return Created{param, std::move(handle)};
  }
  if (is_scratch_beside_params(name)) return create_staged(name, flags);
  KVFS_TRY(known_param(context(), state(), name));
  return no_such_file(name);
}

bool ParamsDir::yields(std::string_view name) {
  if (!sched::is_param(name)) return false;
  const auto record = context().store.state(state());
  return record && !record->snapshot && (!record->version || context().arrivals.goes_on(state()));
}

void ParamsDir::remove_file(const std::string& name, Done done) {
  if (auto file = context().staging.find(place(), name)) {
    return spooler::remove(context(), std::move(file), std::move(done));
  }
  if (!sched::is_param(name)) return done(no_such_file(name));
  if (Status allowed = writable(); !allowed) return done(std::move(allowed));
  context().hidden.hide(ino(), name);
  done({});
}

void ParamsDir::rename(const std::string& name, Directory& to, const std::string& new_name,
                       bool replace, Done done) {
  auto& target = static_cast<StagingDir&>(to);
  if (auto file = context().staging.find(place(), name)) {
    return target.take(std::move(file), new_name, replace, std::move(done));
  }
  // An editor's backup: the value gets a second, scratch, name; the parameter is there again soon.
  const auto value = param_text(context(), state(), name);
  if (!value) return done(fail(value.error()));
  if (&target != this || !is_scratch_beside_params(new_name)) {
    return done(
        fail(ErrorCode::kPermission, "renaming parameter " + name, "its name is its meaning"));
  }
  auto backup = std::make_shared<StagedFile>(context(), place(), new_name);
  StagedFile::Writer writer;
  if (auto written = backup->write(writer, 0, as_bytes(*value)); !written) {
    return done(fail(written.error()));
  }
  if (auto old = context().staging.find(place(), new_name)) {
    context().staging.remove(place(), new_name, old.get());
  }
  context().staging.add(std::move(backup));
  context().hidden.hide(ino(), name);
  done({});
}

void ParamsDir::take(std::shared_ptr<StagedFile> file, const std::string& name, bool replace,
                     Done done) {
  if (is_scratch_beside_params(name)) {
    return spooler::move(context(), std::move(file), place(), name, replace, std::move(done));
  }
  set_param(
      context(), state(), name, file->content(),
      [&context = context(), file, done = std::move(done)](const Status& status) {
        if (status && file->advance(StagedFile::Phase::kStaged, StagedFile::Phase::kGone)) {
          context.staging.remove(file->place(), file->name(), file.get());
        }
        done(status);
      },
      file->changed_ns());
}

}  // namespace kvfs::fs

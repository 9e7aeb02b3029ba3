#include "fs/nodes/kv_dir.h"

#include <algorithm>
#include <optional>

#include "fs/nodes/copied_file.h"
#include "fs/nodes/root.h"
#include "fs/nodes/state_container.h"
#include "fs/nodes/version_file.h"

namespace kvfs::fs {
namespace {

constexpr std::string_view kBelow = "kv/";

std::string path_of(std::string_view name) { return std::string(kBelow) + std::string(name); }

std::string name_of_layer(std::size_t layer) {
  return sched::layer_path(layer).substr(kBelow.size());
}

std::optional<std::uint16_t> layer_of_name(std::string_view name) {
  return sched::layer_of_path(path_of(name));
}

}  // namespace

Result<Attributes> KvDir::attributes() {
  KVFS_ASSIGN(Attributes out, PartDirectory::attributes());
  KVFS_ASSIGN(const store::StateRecord record, context().store.state(state()));
  if (record.version) out.changed_ns = record.advanced_ns;
  return out;
}

Result<NodePtr> KvDir::lookup(std::string_view name) {
  const EntryPlace place{ino(), std::string(name)};
  if (auto node = staged_node(context(), state(), path_of(name), place)) return node;
  const auto layer = layer_of_name(name);
  if (!layer || context().hidden.hidden(ino(), name)) return no_such_file(name);
  KVFS_ASSIGN(const CurrentVersion now, current_version(context(), state()));
  if (!now.files || *layer >= now.files->record().layers.size()) return no_such_file(name);
  return version_file(context(), state(), now, layer_part(*layer), {ino(), std::string(name)});
}

Result<std::vector<Entry>> KvDir::list() {
  KVFS_ASSIGN(const CurrentVersion now, current_version(context(), state()));
  KVFS_ASSIGN(const auto staged, context().store.staged(state()));
  std::vector<Entry> entries;
  for (const store::NameEntry& entry : staged) {
    if (!entry.name.starts_with(kBelow)) continue;
    entries.push_back({entry.name.substr(kBelow.size()), false, ino_of(entry.file)});
  }
  const std::size_t copied = entries.size();
  const std::size_t layers = now.files ? now.files->record().layers.size() : 0;
  for (std::size_t layer = 0; layer < layers; ++layer) {
    std::string name = name_of_layer(layer);
    const auto end = entries.begin() + static_cast<std::ptrdiff_t>(copied);
    if (std::ranges::find(entries.begin(), end, name, &Entry::name) != end) continue;
    if (context().hidden.hidden(ino(), name)) continue;
    const auto part = layer_part(static_cast<std::uint16_t>(layer));
    const auto number = ino_of(state(), now.record.version, part);
    entries.push_back({std::move(name), false, number.value_or(0)});
  }
  return entries;
}

bool KvDir::at_rest(const std::vector<Entry>& /*listed*/) { return !context().hidden.any(ino()); }

Result<store::FilePlace> KvDir::file_place(const std::string& name) {
  KVFS_TRY(writable());
  return store::FilePlace{state(), path_of(name), true};
}

bool KvDir::yields(std::string_view name) {
  return layer_of_name(name) && context().arrivals.goes_on(state()) &&
         !context().store.staged(state(), path_of(name));
}

void KvDir::create_file(const std::string& name, const Creation& how, Answer<Created> done) {
  if (const Status allowed = writable(); !allowed) return done(fail(allowed.error()));
  context().hidden.show(ino(), name);
  create_staged_file(context(), state(), path_of(name), {ino(), name}, how, std::move(done));
}

void KvDir::remove_file(const std::string& name, Done done) {
  if (Status allowed = writable(); !allowed) return done(std::move(allowed));
  if (context().store.staged(state(), path_of(name))) {
    return unlink_file(context(), *this, name, std::move(done));
  }
  if (!layer_of_name(name)) return done(no_such_file(name));
  context().hidden.hide(ino(), name);
  done({});
}

void KvDir::rename(const std::string& name, Directory& to, const std::string& new_name,
                   bool replace, Done done) {
  move_file(context(), *this, name, to, new_name, replace, std::move(done));
}

}  // namespace kvfs::fs

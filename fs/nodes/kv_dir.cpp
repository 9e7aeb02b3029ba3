#include "fs/nodes/kv_dir.h"

#include <charconv>
#include <optional>

#include <fmt/format.h>

#include "fs/nodes/root.h"
#include "fs/nodes/version_file.h"

namespace kvfs::fs {
namespace {

std::string name_of_layer(std::size_t layer) {
  return fmt::format("layer-{:03}.safetensors", layer);
}

std::optional<std::uint16_t> layer_of_name(std::string_view name) {
  constexpr std::string_view kPrefix = "layer-";
  std::uint16_t layer = 0;
  if (!name.starts_with(kPrefix)) return std::nullopt;
  const std::string_view digits = name.substr(kPrefix.size());
  std::from_chars(digits.data(), digits.data() + digits.size(), layer);
  if (name_of_layer(layer) != name) return std::nullopt;
  return layer;
}

}  // namespace

Result<NodePtr> KvDir::lookup(std::string_view name) {
  const auto layer = layer_of_name(name);
  if (!layer || context().hidden.hidden(ino(), name)) return no_such_file(name);
  KVFS_ASSIGN(const CurrentVersion now, current_version(context(), state()));
  if (!now.files || *layer >= now.files->record().layers.size()) return no_such_file(name);
  return version_file(context(), state(), now, layer_part(*layer), {ino(), std::string(name)});
}

Result<std::vector<Entry>> KvDir::list() {
  KVFS_ASSIGN(const CurrentVersion now, current_version(context(), state()));
  std::vector<Entry> entries;
  if (!now.files) return entries;
  for (std::size_t layer = 0; layer < now.files->record().layers.size(); ++layer) {
    std::string name = name_of_layer(layer);
    if (context().hidden.hidden(ino(), name)) continue;
    const auto part = layer_part(static_cast<std::uint16_t>(layer));
    const auto number = ino_of(state(), now.record.version, part);
    entries.push_back({std::move(name), false, number.value_or(0)});
  }
  return entries;
}

void KvDir::remove_file(const std::string& name, Done done) {
  if (!layer_of_name(name)) return done(no_such_file(name));
  if (Status allowed = writable(); !allowed) return done(std::move(allowed));
  context().hidden.hide(ino(), name);
  done({});
}

}  // namespace kvfs::fs

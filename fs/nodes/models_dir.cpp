#include "fs/nodes/models_dir.h"

#include <algorithm>
#include <array>
#include <utility>

#include "fs/nodes/generated_file.h"
#include "fs/nodes/root.h"

namespace kvfs::fs {
namespace {

Result<std::string> with_newline(Result<std::string> text) {
  if (text && !text->ends_with('\n')) text->push_back('\n');
  return text;
}

struct Item {
  std::string_view name;
  ModelPart part;
  Result<std::string> (sched::Catalog::*text)(const std::string&);
};
constexpr std::array kItems = {
    Item{"config.json", ModelPart::kConfig, &sched::Catalog::config_json},
    Item{"fingerprint", ModelPart::kFingerprint, &sched::Catalog::fingerprint},
    Item{"info.json", ModelPart::kInfo, &sched::Catalog::info_json},
};

}  // namespace

Result<Attributes> ModelsDir::attributes() { return daemon_directory(context_); }

Result<NodePtr> ModelsDir::parent() { return std::make_shared<Root>(context_); }

Result<NodePtr> ModelsDir::lookup(std::string_view name) {
  if (std::ranges::count(context_.catalog.names(), name) == 0) return no_such_file(name);
  return std::make_shared<ModelDir>(context_, std::string(name));
}

Result<std::vector<Entry>> ModelsDir::list() {
  std::vector<Entry> entries;
  for (const auto& name : context_.catalog.names()) {
    entries.push_back({name, true, ino_of(name, ModelPart::kDirectory)});
  }
  return entries;
}

ModelDir::ModelDir(Context& context, std::string name)
    : Directory(ino_of(name, ModelPart::kDirectory)), context_(context), name_(std::move(name)) {}

Result<Attributes> ModelDir::attributes() { return daemon_directory(context_); }

Result<NodePtr> ModelDir::parent() { return std::make_shared<ModelsDir>(context_); }

Result<NodePtr> ModelDir::lookup(std::string_view name) {
  for (const Item& item : kItems) {
    if (item.name != name) continue;
    return std::make_shared<GeneratedFile>(
        ino_of(name_, item.part), GeneratedFile::Kind::kConstant, StateId{}, daemon_file(context_),
        [&catalog = context_.catalog, text = item.text, model = name_] {
          return with_newline((catalog.*text)(model));
        });
  }
  return no_such_file(name);
}

Result<std::vector<Entry>> ModelDir::list() {
  std::vector<Entry> entries;
  for (const Item& item : kItems) {
    entries.push_back({std::string(item.name), false, ino_of(name_, item.part)});
  }
  return entries;
}

}  // namespace kvfs::fs

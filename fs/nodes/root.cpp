#include "fs/nodes/root.h"

#include <array>

#include "fs/modes.h"
#include "fs/nodes/bundles_dir.h"
#include "fs/nodes/generated_file.h"
#include "fs/nodes/models_dir.h"
#include "fs/nodes/states_dir.h"
#include "fs/readme_text.h"

namespace kvfs::fs {
namespace {

NodePtr readme(Context& context) {
  return std::make_shared<GeneratedFile>(
      ino_of(Fixed::kReadme), GeneratedFile::Kind::kConstant, StateId{}, daemon_file(context),
      [&context]() -> Result<std::string> { return readme_text(context.mount_point); });
}

NodePtr status(Context& context) {
  return std::make_shared<GeneratedFile>(
      ino_of(Fixed::kStatus), GeneratedFile::Kind::kChanging, StateId{},
      [&context]() -> Result<Attributes> {
        KVFS_ASSIGN(Attributes out, daemon_file(context)());
        out.changed_ns = now_ns();
        return out;
      },
      [&context]() -> Result<std::string> {
        std::string text =
            sched::root_status(context.store, context.scheduler, context.catalog);
        for (const Refusal& refusal : context.refusals.of(StateId{})) {
          text += refusal.subject + " error: " + refusal.message + "\n";
        }
        return text;
      });
}

NodePtr bundles(Context& context) {
  return std::make_shared<BundlesDir>(context, StateId{});
}
NodePtr models(Context& context) { return std::make_shared<ModelsDir>(context); }
NodePtr states(Context& context) { return std::make_shared<StatesDir>(context); }

struct Item {
  std::string_view name;
  Fixed ino;
  bool directory;
  NodePtr (*make)(Context&);
};
constexpr std::array kItems = {
    Item{"README", Fixed::kReadme, false, readme},
    Item{"bundles", Fixed::kBundles, true, bundles},
    Item{"models", Fixed::kModels, true, models},
    Item{"states", Fixed::kStates, true, states},
    Item{"status", Fixed::kStatus, false, status},
};

}  // namespace

Result<Attributes> Root::attributes() { return daemon_directory(context_); }

Result<NodePtr> Root::lookup(std::string_view name) {
  for (const Item& item : kItems) {
    if (item.name == name) return item.make(context_);
  }
  return no_such_file(name);
}

Result<std::vector<Entry>> Root::list() {
  std::vector<Entry> entries;
  for (const Item& item : kItems) {
    entries.push_back({std::string(item.name), item.directory, ino_of(item.ino)});
  }
  return entries;
}

Attributes daemon_directory(const Context& context) {
  return {.mode = S_IFDIR | 0555,
          .uid = context.uid,
          .gid = context.gid,
          .size = 0,
          .changed_ns = context.started_ns};
}

tl::unexpected<Error> no_such_file(std::string_view name) {
  return fail(ErrorCode::kNotFound, std::string(name), "there is no such file");
}

}  // namespace kvfs::fs

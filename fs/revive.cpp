#include "fs/revive.h"

#include "fs/nodes/bundles_dir.h"
#include "fs/nodes/kv_dir.h"
#include "fs/nodes/models_dir.h"
#include "fs/nodes/params_dir.h"
#include "fs/nodes/root.h"
#include "fs/nodes/state_dir.h"

namespace kvfs::fs {
namespace {

NodePtr find_in(Directory& directory, Ino ino) {
  const auto entries = directory.list();
  if (!entries) return nullptr;
  for (const Entry& entry : *entries) {
    if (entry.ino != ino) continue;
    auto node = directory.lookup(entry.name);
    return node && (*node)->ino() == ino ? *std::move(node) : nullptr;
  }
  return nullptr;
}

NodePtr find_model(Context& context, Ino ino) {
  ModelsDir models(context);
  if (NodePtr directory = find_in(models, ino)) return directory;
  for (const std::string& name : context.catalog.names()) {
    ModelDir model(context, name);
    if (NodePtr file = find_in(model, ino)) return file;
  }
  return nullptr;
}

NodePtr find_bundle(Context& context, StateId state, Ino ino) {
  const auto record = context.store.state(state);
  if (!record) return nullptr;
  BundlesDir bundles(context, record->parent);
  for (const char* suffix : {".pt", ".safetensors", ".pkl", ".npz", ".kvfs"}) {
    auto node = bundles.lookup(record->name + suffix);
    if (node && (*node)->ino() == ino) return *std::move(node);
  }
  return nullptr;
}

NodePtr find_in_state(Context& context, const InoParts& parts, Ino ino) {
  auto directory = state_dir(context, parts.state);
  if (!directory) return nullptr;
  if ((*directory)->ino() == ino) return *directory;
  const bool is_state = parts.kind == InoKind::kState;
  if (is_state && parts.index == static_cast<std::uint16_t>(StatePart::kBundles)) {
    return std::make_shared<BundlesDir>(context, parts.state);
  }
  if (is_state) {
    if (parts.index < static_cast<std::uint16_t>(StatePart::kFirstParam)) {
      return find_in(*(*directory)->as_directory(), ino);
    }
    ParamsDir params(context, parts.state);
    return find_in(params, ino);
  }
  const auto part = static_cast<VersionPart>(parts.index);
  if (part >= VersionPart::kBundlePt && part <= VersionPart::kBundleKvfs) {
    return find_bundle(context, parts.state, ino);
  }
  if (part < VersionPart::kFirstLayer) {
    return find_in(*(*directory)->as_directory(), ino);
  }
  KvDir kv(context, parts.state);
  return find_in(kv, ino);
}

}  // namespace

NodePtr revive(Context& context, Ino ino) {
  const InoParts parts = parts_of(ino);
  switch (parts.kind) {
    case InoKind::kFixed: {
      Root root(context);
      return find_in(root, ino);
    }
    case InoKind::kModel:
      return find_model(context, ino);
    case InoKind::kState:
    case InoKind::kVersion:
      return find_in_state(context, parts, ino);
    case InoKind::kReply:
    case InoKind::kArrival:
    case InoKind::kFile:
      return nullptr;
  }
  return nullptr;
}

}  // namespace kvfs::fs

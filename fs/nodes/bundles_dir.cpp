#include "fs/nodes/bundles_dir.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "engine/sched/bundle_import.h"
#include "engine/store/bundles.h"
#include "fs/incoming.h"
#include "fs/modes.h"
#include "fs/nodes/bundle_file.h"
#include "fs/nodes/root.h"
#include "fs/nodes/states_dir.h"

namespace kvfs::fs {
namespace {

constexpr std::size_t kPage = 1024;  // names a read transaction
constexpr std::string_view kPt = ".pt", kSafetensors = ".safetensors";

}  // namespace

BundlesDir::BundlesDir(Context& context, StateId container)
    : Directory(container ? ino_of(container, StatePart::kBundles) : ino_of(Fixed::kBundles)),
      context_(context),
      container_(container) {}

Result<Attributes> BundlesDir::attributes() {
  if (!container_) return StatesDir(context_).attributes();
  KVFS_ASSIGN(const store::StateRecord record, context_.store.state(container_));
  return Attributes{.mode = directory_mode(record),
                    .uid = record.uid,
                    .gid = record.gid,
                    .size = 0,
                    .changed_ns = std::max(record.changed_ns, record.advanced_ns)};
}

Result<NodePtr> BundlesDir::parent() {
  if (!container_) return std::make_shared<Root>(context_);
  KVFS_ASSIGN(const store::StateRecord record, context_.store.state(container_));
  return std::make_shared<BundlesDir>(context_, record.parent);
}

Result<StateId> BundlesDir::child(std::string_view name) const {
  KVFS_ASSIGN(const store::NameEntry entry, context_.store.lookup(container_, name));
  if (entry.kind != store::NameEntry::Kind::kState) return no_such_file(name);
  return entry.state;
}

Result<NodePtr> BundlesDir::bundle(std::string_view name) {
  const auto part = bundle_part(name);
  if (!part) return no_such_file(name);
  KVFS_ASSIGN(const StateId state, child(sched::bundle_stem(name)));
  KVFS_ASSIGN(const CurrentVersion now, current_version(context_, state));
  if (!now.files) return no_such_file(name);
  KVFS_ASSIGN(const std::uint64_t size, now.files->size(*part));
  const Ino number = ino_of(state, now.record.version, *part).value_or(0);
  return std::make_shared<BundleFile>(context_, number != 0 ? number : context_.inos.next(), state,
                                      now.record, *part, EntryPlace{ino(), std::string(name)}, size,
                                      container_);
}

Result<NodePtr> BundlesDir::lookup(std::string_view name) {
  if (auto file = context_.incoming.find({container_, std::string(name)})) return file;
  if (context_.hidden.hidden(ino(), name)) return no_such_file(name);
  // Forms that are not listed leave their names to states that are called so.
  const bool listed = name.ends_with(kPt) || name.ends_with(kSafetensors);
  if (const auto state = child(name); state && !listed) {
    return std::make_shared<BundlesDir>(context_, *state);
  }
  auto found = bundle(name);
  if (found || found.error().code != ErrorCode::kNotFound) return found;
  KVFS_ASSIGN(const StateId state, child(name));
  return std::make_shared<BundlesDir>(context_, state);
}

Status BundlesDir::list_state(const store::NameEntry& entry, std::vector<Entry>& entries) const {
  KVFS_ASSIGN(const CurrentVersion now, current_version(context_, entry.state));
  const auto add = [&](std::string_view suffix, VersionPart part) {
    const auto number = ino_of(entry.state, now.record.version, part);
    entries.push_back({entry.name + std::string(suffix), false, number.value_or(0)});
  };
  if (now.files) {
    if (store::fits_pt(now.files->record())) add(kPt, VersionPart::kBundlePt);
    add(kSafetensors, VersionPart::kBundleSafetensors);
  }
  // A directory for what is below it, and for a state that has nothing to show yet.
  KVFS_ASSIGN(const auto inside, context_.store.list(entry.state, {}, kPage));
  const bool children = std::ranges::find(inside, store::NameEntry::Kind::kState,
                                          &store::NameEntry::kind) != inside.end();
  if (children || !now.files) {
    entries.push_back({entry.name, true, ino_of(entry.state, StatePart::kBundles)});
  }
  return {};
}

Result<std::vector<Entry>> BundlesDir::list() {
  std::vector<Entry> entries;
  std::string after;
  while (true) {
    KVFS_ASSIGN(const auto page, context_.store.list(container_, after, kPage));
    for (const store::NameEntry& entry : page) {
      if (entry.kind != store::NameEntry::Kind::kState) continue;
      const Status listed = list_state(entry, entries);
      if (!listed && listed.error().code != ErrorCode::kNotFound) return fail(listed.error());
    }
    if (page.size() < kPage) break;
    after = page.back().name;
  }
  std::erase_if(entries, [&](const Entry& e) { return context_.hidden.hidden(ino(), e.name); });
  for (const auto& file : context_.incoming.in(container_)) {
    const std::string name = file->place().name;
    std::erase_if(entries, [&](const Entry& e) { return e.name == name; });
    entries.push_back({name, false, file->ino()});
  }
  // A state may be called a.pt: its directory gives way to a's bundle.
  std::ranges::stable_sort(entries, {}, &Entry::name);
  const auto twice = std::ranges::unique(entries, {}, &Entry::name);
  entries.erase(twice.begin(), twice.end());
  return entries;
}

// A directory that a tree of bundles is copied into is a state, as everywhere.
void BundlesDir::make_directory(const std::string& name, const Caller& caller,
                                Answer<NodePtr> done) {
  if (auto state = child(name)) {
    context_.hidden.show(ino(), name);
    return done(std::make_shared<BundlesDir>(context_, *state));
  }
  constexpr std::uint32_t kBirthMode = 0700;
  sched::create_state(context_.store, container_, name, {.uid = caller.uid, .gid = caller.gid},
                      kBirthMode, {},
                      [alive = context_.alive(), done = std::move(done)](Result<StateId> state) {
                        if (!state) return done(fail(state.error()));
                        done(std::make_shared<BundlesDir>(*alive, *state));
                      });
}

// What is here shows states, which are removed elsewhere.
void BundlesDir::remove_directory(const std::string& name, Done done) {
  if (const auto state = child(name); !state) return done(fail(state.error()));
  context_.hidden.hide(ino(), name);
  done({});
}

void BundlesDir::remove_file(const std::string& name, Done done) {
  const BundlePlace place{container_, name};
  if (const auto file = context_.incoming.find(place)) {
    context_.incoming.remove(place, file.get());
    return done({});
  }
  if (const auto found = bundle(name); !found) return done(fail(found.error()));
  context_.hidden.hide(ino(), name);
  done({});
}

void BundlesDir::create_file(const std::string& name, const Creation& how, Answer<Created> done) {
  auto file = IncomingBundle::create(context_, {container_, name}, how.caller);
  if (!file) {
    note_refusal(context_, {container_, name}, fail(file.error()));
    return done(fail(file.error()));
  }
  context_.hidden.show(ino(), name);
  context_.incoming.add(*file);
  auto handle = (*file)->open(how.flags);
  if (!handle) return done(fail(handle.error()));
  done(Created{*std::move(file), *std::move(handle)});
}

void BundlesDir::rename(const std::string& name, Directory& to, const std::string& new_name,
                        bool replace, Done done) {
  const BundlePlace from{container_, name};
  const BundlePlace target{dynamic_cast<BundlesDir&>(to).container_, new_name};
  const auto file = context_.incoming.find(from);
  if (!file) {
    return done(fail(ErrorCode::kPermission, "renaming " + name, "it shows a state",
                     "rename the state, in states/"));
  }
  if (!replace && to.lookup(new_name)) {
    return done(fail(ErrorCode::kExists, "renaming to " + new_name, "that is there"));
  }
  if (Status fine = check_bundle_name(new_name); !fine) {
    note_refusal(context_, target, fine);
    return done(std::move(fine));
  }
  if (is_temporary_bundle(new_name)) {
    context_.incoming.move(from, target);
    return done({});
  }
  file->settle_as(target, std::move(done));
}

}  // namespace kvfs::fs

#include "fs/nodes/state_container.h"

#include <utility>

#include "fs/nodes/root.h"
#include "fs/nodes/state_dir.h"

namespace kvfs::fs {
namespace {

constexpr std::size_t kPage = 1024;         // names a read transaction
constexpr std::uint32_t kBirthMode = 0700;  // attention state reveals the prompt

}  // namespace

Result<StateId> StateContainer::child(std::string_view name) {
  KVFS_ASSIGN(const store::NameEntry entry, context_.store.lookup(container_, name));
  if (entry.kind != store::NameEntry::Kind::kState) return no_such_file(name);
  return entry.state;
}

Result<NodePtr> StateContainer::lookup(std::string_view name) {
  KVFS_ASSIGN(const StateId state, child(name));
  return std::make_shared<StateDir>(context_, state, EntryPlace{ino(), std::string(name)});
}

Result<std::vector<Entry>> StateContainer::list() {
  std::vector<Entry> entries;
  std::string after;
  while (true) {
    KVFS_ASSIGN(const auto page, context_.store.list(container_, after, kPage));
    for (const auto& entry : page) {
      if (entry.kind != store::NameEntry::Kind::kState) continue;
      entries.push_back({entry.name, true, ino_of(entry.state, StatePart::kDirectory)});
    }
    if (page.size() < kPage) return entries;
    after = page.back().name;
  }
}

void StateContainer::make_directory(const std::string& name, const Caller& caller,
                                    Answer<NodePtr> done) {
  sched::create_state(context_.store, container_, name, {.uid = caller.uid, .gid = caller.gid},
                      kBirthMode, {},
                      [alive = context_.alive(), place = EntryPlace{ino(), name},
                       done = std::move(done)](Result<StateId> state) {
                        if (!state) return done(fail(state.error()));
                        alive->background_notifier.attributes(place.directory);
                        done(std::make_shared<StateDir>(*alive, *state, place));
                      });
}

void StateContainer::remove_directory(const std::string& name, Done done) {
  const Result<StateId> state = child(name);
  if (!state) return done(fail(state.error()));
  // Before its jobs are cancelled for nothing.
  const auto children = context_.store.list(*state, {}, 1);
  if (children && !children->empty()) {
    return done(fail(ErrorCode::kNotEmpty, "rmdir " + name, "it has children",
                     "remove them first, or use rm -r"));
  }
  // The kernel holds both directories until this is answered.
  for (const StateId held : {*state, container_}) context_.notifier.removing(held, true);
  sched::remove_state(context_.store, context_.scheduler, *state,
                      [alive = context_.alive(), directory = ino(), id = *state,
                       parent = container_, done = std::move(done)](const Status& status) {
                        for (const StateId held : {id, parent}) {
                          alive->notifier.removing(held, false);
                        }
                        if (status) {
                          alive->staging.remove(id);
                          alive->refusals.drop(id);
                          alive->background_notifier.attributes(directory);
                        }
                        done(status);
                      });
}

void StateContainer::rename(const std::string& name, Directory& to, const std::string& new_name,
                            bool /*replace*/, Done done) {
  const Result<StateId> state = child(name);
  if (!state) {
    // What the daemon makes in a state's directory has its name for good.
    return done(
        fail(ErrorCode::kPermission, "renaming " + name, "only states can be renamed here"));
  }
  auto& target = static_cast<StateContainer&>(to);
  sched::rename_state(context_.store, *state, target.container_, new_name, std::move(done));
}

Result<Created> StateContainer::create_file(const std::string& name, int /*flags*/) {
  return fail(ErrorCode::kUnsupported, "creating " + name,
              "only states and their spools hold files", "write prompts to feed/, ask/, continue/");
}

}  // namespace kvfs::fs

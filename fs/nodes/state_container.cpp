#include "fs/nodes/state_container.h"

#include <fcntl.h>

#include <utility>

#include "engine/store/write_transaction.h"
#include "fs/nodes/root.h"
#include "fs/nodes/snap_dir.h"
#include "fs/nodes/state_dir.h"
#include "fs/nodes/user_file.h"

namespace kvfs::fs {
namespace {

using Kind = store::NameEntry::Kind;

constexpr std::size_t kPage = 1024;         // names a read transaction
constexpr std::uint32_t kBirthMode = 0700;  // attention state reveals the prompt

// A rename is how programs replace a file for good: it is on disk when it returns. Of what is
// staged it need not be: the copy ends with what is.
void move_names(Context& context, bool staged, std::function<Status(store::WriteTransaction&)> body,
                Done done) {
  if (staged) return context.store.write_soon(std::move(body), std::move(done));
  context.store.write_async(std::move(body), std::move(done));
}

}  // namespace

Result<StateId> StateContainer::child(std::string_view name) {
  KVFS_ASSIGN(const store::NameEntry entry, context_.store.lookup(container_, name));
  if (entry.kind != Kind::kState) return no_such_file(name);
  return entry.state;
}

NodePtr StateContainer::file_node(const store::NameEntry& entry) {
  if (entry.kind == Kind::kSymlink) {
    return std::make_shared<Symlink>(context_, entry.file, container_);
  }
  return std::make_shared<UserFile>(context_, entry.file, container_, frozen_);
}

Result<NodePtr> StateContainer::lookup(std::string_view name) {
  KVFS_ASSIGN(const store::NameEntry entry, context_.store.lookup(container_, name));
  if (entry.kind != Kind::kState) return file_node(entry);
  return std::make_shared<StateDir>(context_, entry.state, EntryPlace{ino(), std::string(name)},
                                    false);
}

Result<std::vector<Entry>> StateContainer::list() {
  std::vector<Entry> entries;
  std::string after;
  while (true) {
    KVFS_ASSIGN(const auto page, context_.store.list(container_, after, kPage));
    for (const auto& entry : page) {
      const bool state = entry.kind == Kind::kState;
      entries.push_back({entry.name, state,
                         state ? ino_of(entry.state, StatePart::kDirectory) : ino_of(entry.file),
                         entry.kind == Kind::kSymlink});
    }
    if (page.size() < kPage) return entries;
    after = page.back().name;
  }
}

void StateContainer::make_directory(const std::string& name, const Caller& caller,
                                    Answer<NodePtr> done) {
  auto made = [alive = context_.alive(), parent = container_, place = EntryPlace{ino(), name},
               done = std::move(done)](const Result<StateId>& state) {
    if (!state) return done(fail(state.error()));
    alive->arrivals.forked(parent, *state);
    alive->name_times.changed(place.directory);
    alive->background_notifier.attributes(place.directory);
    done(std::make_shared<StateDir>(*alive, *state, place, false));
  };
  auto make = [alive = context_.alive(), parent = container_, name, caller,
               made = std::move(made)](const Status& stored) {
    if (!stored) return made(fail(stored.error()));
    sched::create_state(alive->store, parent, name, {.uid = caller.uid, .gid = caller.gid},
                        kBirthMode, {}, made);
  };
  if (!container_) return make({});
  store_files_of(context_, container_, std::move(make));
}

void StateContainer::remove_directory(const std::string& name, Done done) {
  const Result<StateId> state = child(name);
  if (!state) return done(fail(state.error()));
  // Before its jobs are cancelled for nothing.
  if (Status removable = context_.store.removable(*state); !removable) {
    return done(std::move(removable));
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
                          alive->arrivals.drop(id);
                          alive->name_times.drop(id);
                          alive->name_times.changed(directory);
                          alive->background_notifier.attributes(directory);
                        }
                        done(status);
                      });
}

// --- files --------------------------------------------------------------------------------------

Status StateContainer::check_file_name(const std::string& name) const {
  if (frozen_) return refuse_in_snapshot(name);
  if (!container_ || !sched::is_reserved_name(name)) return {};
  return fail(ErrorCode::kPermission, "creating " + name, "the daemon makes the file of that name",
              "choose another name");
}

// A new file is on disk soon, and with its first contents at the latest; a link is now.
void StateContainer::create(const std::string& name, store::FileNode node, Answer<FileId> done) {
  if (const Status allowed = check_file_name(name); !allowed) return done(fail(allowed.error()));
  const auto id = std::make_shared<FileId>();  // with the two callbacks
  const bool link = node.kind == store::FileKind::kSymlink;
  auto body = [place = store::FilePlace{container_, name}, node = std::move(node),
               id](store::WriteTransaction& tx) -> Status {
    KVFS_ASSIGN(*id, tx.create_node(place, node));
    return {};
  };
  auto made = [id, alive = context_.alive(), directory = ino(),
               done = std::move(done)](const Status& status) {
    if (status) alive->name_times.changed(directory);
    done(status ? Result<FileId>(*id) : fail(status.error()));
  };
  if (link) return context_.store.write_async(std::move(body), std::move(made));
  context_.store.write_soon(std::move(body), std::move(made));
}

void StateContainer::create_file(const std::string& name, const Creation& how,
                                 Answer<Created> done) {
  create(name, new_node(how),
         [alive = context_.alive(), state = container_, flags = how.flags & ~O_TRUNC,
          done = std::move(done)](const Result<FileId>& id) {
           if (!id) return done(fail(id.error()));
           auto node = std::make_shared<UserFile>(*alive, *id, state, false);
           auto handle = node->open(flags);
           if (!handle) return done(fail(handle.error()));
           done(Created{std::move(node), *std::move(handle)});
         });
}

void StateContainer::make_symlink(const std::string& name, const std::string& target,
                                  const Caller& caller, Answer<NodePtr> done) {
  store::FileNode node = new_node({.mode = 0777, .caller = caller});
  node.kind = store::FileKind::kSymlink;
  node.size = target.size();
  node.target = target;
  create(name, std::move(node),
         [alive = context_.alive(), state = container_,
          done = std::move(done)](const Result<FileId>& id) {
           if (!id) return done(fail(id.error()));
           done(std::make_shared<Symlink>(*alive, *id, state));
         });
}

Result<store::FilePlace> StateContainer::file_place(const std::string& name) {
  KVFS_TRY(check_file_name(name));
  return store::FilePlace{container_, name};
}

void StateContainer::remove_file(const std::string& name, Done done) {
  unlink_file(context_, *this, name, std::move(done));
}

void StateContainer::rename(const std::string& name, Directory& to, const std::string& new_name,
                            bool replace, Done done) {
  if (frozen_) return done(refuse_in_snapshot(name));
  const auto entry = context_.store.lookup(container_, name);
  if (!entry) {
    // What the daemon makes in a state's directory has its name for good.
    return done(fail(ErrorCode::kPermission, "renaming " + name,
                     "only states and users' files can be renamed here"));
  }
  auto* const target = dynamic_cast<StateContainer*>(&to);
  if (entry->kind != Kind::kState) {
    if (target == nullptr) return move_file(context_, *this, name, to, new_name, replace, done);
    return target->take(*this, name, new_name, replace, std::move(done));
  }
  if (target == nullptr) {
    return done(fail(ErrorCode::kPermission, "moving " + name, "states live under states/"));
  }
  sched::rename_state(context_.store, entry->state, target->container_, new_name,
                      [alive = context_.alive(), old_directory = ino(), directory = target->ino(),
                       done = std::move(done)](const Status& status) {
                        if (status) alive->name_times.changed(old_directory);
                        if (status) alive->name_times.changed(directory);
                        done(status);
                      });
}

void StateContainer::take(StateContainer& from, const std::string& name,
                          const std::string& new_name, bool replace, Done done) {
  move_file(context_, from, name, *this, new_name, replace, std::move(done));
}

void unlink_file(Context& context, Directory& from, const std::string& name, Done done) {
  const auto place = from.file_place(name);
  if (!place) return done(fail(place.error()));
  const auto id = std::make_shared<FileId>();  // with the two callbacks
  context.store.write_soon(
      [place = *place, id](store::WriteTransaction& tx) -> Status {
        KVFS_ASSIGN(*id, tx.unlink_node(place));
        return {};
      },
      [alive = context.alive(), id, directory = from.ino(),
       done = std::move(done)](const Status& status) {
        if (status) alive->name_times.changed(directory);
        if (status) alive->files.unlinked(*alive, *id);
        done(status);
      });
}

void move_file(Context& context, Directory& from, const std::string& name, Directory& to,
               const std::string& new_name, bool replace, Done done) {
  const auto source = from.file_place(name);
  const auto target = to.file_place(new_name);
  if (!source || !target) return done(fail(source ? target.error() : source.error()));
  const auto replaced = std::make_shared<std::optional<FileId>>();  // with the two callbacks
  const bool staged = source->staged && target->staged;
  move_names(
      context, staged,
      [source = *source, target = *target, replace,
       replaced](store::WriteTransaction& tx) -> Status {
        KVFS_ASSIGN(*replaced, tx.move_node(source, target, replace));
        return {};
      },
      [alive = context.alive(), target = *target, replaced, old_directory = from.ino(),
       directory = to.ino(), done = std::move(done)](const Status& status) {
        if (status) alive->name_times.changed(old_directory);
        if (status) alive->name_times.changed(directory);
        if (status && *replaced) alive->files.unlinked(*alive, **replaced);
        if (!status || !target.staged || !sched::is_data_path(target.name)) return done(status);
        // The kernel holds the directory until this is answered.
        const StateId state = target.directory;
        alive->notifier.removing(state, true);
        alive->arrivals.arrived(*alive, state, [alive, state, done](const Status& settled) {
          alive->notifier.removing(state, false);
          done(settled);
        });
      });
}

}  // namespace kvfs::fs

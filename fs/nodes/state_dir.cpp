#include "fs/nodes/state_dir.h"

#include <algorithm>
#include <array>
#include <utility>

#include "engine/store/assembly.h"
#include "engine/store/write_transaction.h"
#include "fs/modes.h"
#include "fs/nodes/copied_file.h"
#include "fs/nodes/ctl.h"
#include "fs/nodes/kept_file.h"
#include "fs/nodes/kv_dir.h"
#include "fs/nodes/params_dir.h"
#include "fs/nodes/replies_dir.h"
#include "fs/nodes/root.h"
#include "fs/nodes/snap_dir.h"
#include "fs/nodes/spool_dir.h"
#include "fs/nodes/state_status.h"
#include "fs/nodes/states_dir.h"
#include "fs/nodes/version_file.h"

namespace kvfs::fs {
namespace {

// What a state's directory always has.
struct Item {
  std::string_view name;
  StatePart part;
  bool directory;
  NodePtr (*make)(Context&, StateId);
};
template <class T>
NodePtr make(Context& context, StateId state) {
  return std::make_shared<T>(context, state);
}
template <StatePart kPart>
NodePtr make_spool(Context& context, StateId state) {
  return std::make_shared<SpoolDir>(context, state, kPart);
}
constexpr std::array kItems = {
    Item{"ask", StatePart::kAsk, true, make_spool<StatePart::kAsk>},
    Item{"continue", StatePart::kContinue, true, make_spool<StatePart::kContinue>},
    Item{"ctl", StatePart::kCtl, false, make<Ctl>},
    Item{"feed", StatePart::kFeed, true, make_spool<StatePart::kFeed>},
    Item{"params", StatePart::kParams, true, make<ParamsDir>},
    Item{"replies", StatePart::kReplies, true, make<RepliesDir>},
    Item{"status", StatePart::kStatus, false, state_status},
};

// What it has once it has tokens.
struct DataItem {
  std::string_view name;
  VersionPart part;
};
constexpr std::array kDataItems = {
    DataItem{"state.json", VersionPart::kStateJson},
    DataItem{"text", VersionPart::kText},
    DataItem{"tokens.npy", VersionPart::kTokens},
};
constexpr std::string_view kKv = "kv";
// The directory's time as utimes set it.
constexpr std::string_view kKeptTime = "time";
// Names of a listing that the kernel may keep. Of a larger one people want attributes too, which a
// listing that is read brings along.
constexpr std::size_t kMostKept = 32;
constexpr std::uint64_t kMostStatus = std::uint64_t{16} << 20;

constexpr Item kSnapItem{".snap", StatePart::kSnap, true, make<SnapDir>};

const Item* fixed_item(std::string_view name, bool snapshot) {
  if (name == kSnapItem.name && !snapshot) return &kSnapItem;
  const auto it = std::ranges::find(kItems, name, &Item::name);
  const bool there = it != kItems.end() && (!snapshot || it->part == StatePart::kParams);
  return there ? &*it : nullptr;
}

// Where a state's name stands.
Ino directory_of(const store::StateRecord& record) {
  if (!record.parent) return ino_of(Fixed::kStates);
  return ino_of(record.parent, record.snapshot ? StatePart::kSnap : StatePart::kDirectory);
}

bool holds_kv(const std::vector<store::NameEntry>& staged) {
  return std::ranges::any_of(
      staged, [](const store::NameEntry& entry) { return entry.name.starts_with("kv/"); });
}

bool is_data(std::string_view name) {
  return std::ranges::find(kDataItems, name, &DataItem::name) != kDataItems.end();
}

}  // namespace

StateDir::StateDir(Context& context, StateId state, EntryPlace place, bool snapshot)
    : StateContainer(context, ino_of(state, StatePart::kDirectory), state, snapshot),
      place_(std::move(place)) {}

Result<Attributes> StateDir::attributes() {
  KVFS_ASSIGN(const store::StateRecord record, context().store.state(container()));
  // Until the state advances, what utimes said counts.
  const auto set = context().store.file(container(), store::FileArea::kKept, kKeptTime);
  const bool counts = set && set->content == std::to_string(record.advanced_ns);
  const std::int64_t at =
      counts ? set->changed_ns : std::max(record.changed_ns, record.advanced_ns);
  return Attributes{.mode = directory_mode(record),
                    .uid = record.uid,
                    .gid = record.gid,
                    .size = 0,
                    .changed_ns = context().name_times.at_least(ino(), at)};
}

void StateDir::change(const Changes& changes, Done done) {
  if (!changes.mode && !changes.uid && !changes.gid && !changes.modified_ns) return done({});
  if (frozen()) return done(refuse_in_snapshot(place_.name));
  if (changes.modified_ns) context().name_times.drop(ino());
  context().store.write_soon(
      [id = container(), changes](store::WriteTransaction& write) -> Status {
        KVFS_ASSIGN(store::StateRecord record, write.state(id));
        if (changes.modified_ns) {
          store::FileRecord time;
          time.changed_ns = *changes.modified_ns;
          time.content = std::to_string(record.advanced_ns);
          KVFS_TRY(write.put_file(id, store::FileArea::kKept, kKeptTime, time));
        }
        if (!changes.mode && !changes.uid && !changes.gid) return {};
        record.mode = changes.mode.value_or(record.mode) & 0777;
        record.uid = changes.uid.value_or(record.uid);
        record.gid = changes.gid.value_or(record.gid);
        record.changed_ns = now_ns();
        return write.update_state(id, record);
      },
      [alive = context().alive(), id = container(), done = std::move(done)](const Status& status) {
        for (const NodePtr& node : alive->nodes.of(id))
          alive->background_notifier.attributes(node->ino());
        done(status);
      });
}

Result<NodePtr> StateDir::parent() {
  KVFS_ASSIGN(const store::StateRecord record, context().store.state(container()));
  if (!record.parent) return std::make_shared<StatesDir>(context());
  if (record.snapshot) return std::make_shared<SnapDir>(context(), record.parent);
  return state_dir(context(), record.parent);
}

Result<Ino> StateDir::parent_ino() {
  KVFS_ASSIGN(const store::StateRecord record, context().store.state(container()));
  return directory_of(record);
}

Result<NodePtr> StateDir::lookup(std::string_view name) {
  const bool staged = is_data(name) && context().store.staged(container(), name).has_value();
  if (!staged && context().hidden.hidden(ino(), name)) return no_such_file(name);
  if (const Item* item = fixed_item(name, frozen())) return item->make(context(), container());
  if (is_data(name)) {
    const EntryPlace place{ino(), std::string(name)};
    if (auto node = staged_node(context(), container(), place.name, place)) return node;
  }
  if (name == kKv || is_data(name)) {
    KVFS_ASSIGN(const CurrentVersion now, current_version(context(), container()));
    if (name == kKv && (now.files || has_staged_kv())) {
      return std::make_shared<KvDir>(context(), container());
    }
    if (!now.files) return no_such_file(name);
    const auto& item = *std::ranges::find(kDataItems, name, &DataItem::name);
    return version_file(context(), container(), now, item.part, {ino(), std::string(name)});
  }
  return StateContainer::lookup(name);
}

Result<std::vector<Entry>> StateDir::list() {
  KVFS_ASSIGN(const CurrentVersion now, current_version(context(), container()));
  KVFS_ASSIGN(std::vector<Entry> entries, StateContainer::list());
  KVFS_ASSIGN(const auto staged, context().store.staged(container()));
  for (const Item& item : kItems) {
    if (fixed_item(item.name, frozen()) == nullptr) continue;
    entries.push_back({std::string(item.name), item.directory, ino_of(container(), item.part)});
  }
  if (context().behaviour.snapdir && !frozen()) {
    entries.push_back({std::string(kSnapItem.name), true, ino_of(container(), kSnapItem.part)});
  }
  if (now.files) {
    entries.push_back({std::string(kKv), true, ino_of(container(), StatePart::kKv)});
    for (const DataItem& item : kDataItems) {
      const auto number = ino_of(container(), now.record.version, item.part);
      entries.push_back({std::string(item.name), false, number.value_or(0)});
    }
  } else if (context().arrivals.has_kv(container()) || holds_kv(staged)) {
    entries.push_back({std::string(kKv), true, ino_of(container(), StatePart::kKv)});
  }
  // What is staged stands for what the state has of that name.
  for (const store::NameEntry& entry : staged) {
    if (entry.name.find('/') != std::string::npos) continue;
    std::erase_if(entries, [&](const Entry& e) { return e.name == entry.name; });
    entries.push_back({entry.name, false, ino_of(entry.file)});
  }
  if (context().hidden.any(ino())) {
    std::erase_if(entries, [&](const Entry& e) { return context().hidden.hidden(ino(), e.name); });
  }
  return entries;
}

bool StateDir::at_rest(const std::vector<Entry>& listed) {
  return listed.size() <= kMostKept && !context().hidden.any(ino());
}

// `find` goes into the directories; what is in ctl and status it does not ask.
bool StateDir::lists_attributes(const Entry& entry) const {
  return entry.directory || fixed_item(entry.name, frozen()) == nullptr;
}

bool StateDir::has_staged_kv() const {
  if (context().arrivals.has_kv(container())) return true;
  const auto staged = context().store.staged(container());
  return staged && holds_kv(*staged);
}

// Until it has data, a state's directories and files give way to those that a copy brings.
bool StateDir::yields(std::string_view name) {
  if (frozen() || name == kSnapItem.name) return false;
  const auto record = context().store.state(container());
  if (!record) return false;
  const bool fixed = fixed_item(name, false) != nullptr;
  if (!record->version) return fixed;
  if (!context().arrivals.goes_on(container())) return false;
  if (name == kKv) return !has_staged_kv();
  return fixed || (is_data(name) && !context().store.staged(container(), name));
}

Result<store::FilePlace> StateDir::file_place(const std::string& name) {
  if (!is_data(name)) return StateContainer::file_place(name);
  if (frozen()) return refuse_in_snapshot(name);
  return store::FilePlace{container(), name, true};
}

void StateDir::create_file(const std::string& name, const Creation& how, Answer<Created> done) {
  if (is_data(name)) {
    context().hidden.show(ino(), name);
    return create_staged_file(context(), container(), name, {ino(), name}, how, std::move(done));
  }
  const Item* item = fixed_item(name, frozen());
  if (item == nullptr || item->directory) {
    return StateContainer::create_file(name, how, std::move(done));
  }
  context().hidden.show(ino(), name);
  NodePtr node = item->make(context(), container());
  auto handle = node->as_file()->open(how.flags);
  if (!handle) return done(fail(handle.error()));
  done(Created{std::move(node), *std::move(handle)});
}

// Renamed onto `status` or `ctl`: what a copy says of the state it was made of.
void StateDir::take(StateContainer& from, const std::string& name, const std::string& new_name,
                    bool replace, Done done) {
  const Item* item = fixed_item(new_name, frozen());
  if (item == nullptr || item->directory) {
    return StateContainer::take(from, name, new_name, replace, std::move(done));
  }
  const auto place = from.file_place(name);
  const auto entry =
      place ? context().store.lookup(place->directory, place->name) : fail(place.error());
  if (!entry) return done(fail(entry.error()));
  const auto node = context().store.node(entry->file);
  auto view = store::node_view(context().store, entry->file);
  if (!node || !view) return done(fail(node ? view.error() : node.error()));
  auto text = store::read_whole(**view, kMostStatus, new_name);
  if (!text) return done(fail(text.error()));
  from.remove_file(name, [alive = context().alive(), state = container(), at = node->modified_ns,
                          text = *std::move(text), kept = new_name == "status",
                          done = std::move(done)](const Status& status) {
    if (!status || !kept) return done(status);
    keep(*alive, state, store::FileArea::kKept, kKeptStatus, text, at, done);
  });
}

void StateDir::make_directory(const std::string& name, const Caller& caller, Answer<NodePtr> done) {
  if (name == kKv && !frozen()) {
    context().hidden.show(ino(), name);
    context().arrivals.make_kv(container());
    return done(std::make_shared<KvDir>(context(), container()));
  }
  const Item* item = fixed_item(name, frozen());
  if (item == nullptr || !item->directory) {
    return StateContainer::make_directory(name, caller, std::move(done));
  }
  context().hidden.show(ino(), name);  // it was unlinked a moment ago
  done(item->make(context(), container()));
}

void StateDir::remove_directory(const std::string& name, Done done) {
  const Item* item = fixed_item(name, frozen());
  if (name != kKv && (item == nullptr || !item->directory)) {
    return StateContainer::remove_directory(name, std::move(done));
  }
  if (frozen()) return done(refuse_in_snapshot(name));
  if (name == kSnapItem.name) {
    return done(fail(ErrorCode::kPermission, "rmdir .snap", "every state has one",
                     "remove the snapshots in it"));
  }
  context().hidden.hide(ino(), name);
  done({});
}

void StateDir::remove_file(const std::string& name, Done done) {
  const Item* item = fixed_item(name, frozen());
  if (!is_data(name) && (item == nullptr || item->directory)) {
    return StateContainer::remove_file(name, std::move(done));
  }
  if (frozen()) return done(refuse_in_snapshot(name));
  if (is_data(name) && context().store.staged(container(), name)) {
    return StateContainer::remove_file(name, std::move(done));
  }
  context().hidden.hide(ino(), name);
  done({});
}

Result<NodePtr> state_dir(Context& context, StateId state) {
  KVFS_ASSIGN(const store::StateRecord record, context.store.state(state));
  return std::make_shared<StateDir>(context, state, EntryPlace{directory_of(record), record.name},
                                    record.snapshot);
}

}  // namespace kvfs::fs

#include "engine/store/states.h"

#include <algorithm>
#include <string>
#include <tuple>

#include "engine/store/file_nodes.h"
#include "engine/store/files.h"
#include "engine/store/jobs.h"
#include "engine/store/keys.h"
#include "engine/store/layouts.h"
#include "engine/store/versions.h"
#include "engine/store/write_transaction.h"

namespace kvfs::store {
namespace {

// What a user sets, for comparing.
auto settings(const StateRecord& state) {
  return std::tie(state.params, state.mode, state.uid, state.gid, state.pinned);
}

constexpr std::size_t kMaxName = 255;

std::string name_of(StateId id) { return "state " + std::to_string(id.value); }

Key name_key(StateId parent, std::string_view name) { return Key().id(parent).name(name); }

// Where a state's name stands: a snapshot's among those of its parent.
Table table_of(const StateRecord& state) {
  return state.snapshot ? Table::kSnapshots : Table::kNames;
}

Status put_name(Txn& txn, const StateRecord& state, StateId id) {
  return txn.put(table_of(state), name_key(state.parent, state.name),
                 encode_entry(NameEntry::Kind::kState, id.value));
}

Status erase_name(Txn& txn, const StateRecord& state) {
  KVFS_TRY(txn.erase(table_of(state), name_key(state.parent, state.name)));
  return {};
}

Status put_state(Txn& txn, StateId id, const StateRecord& state) {
  return txn.put(Table::kStates, key_of(id), encode(state));
}

// The parent is there and the name free.
Status require_place(const Txn& txn, StateId parent, std::string_view name,
                     Table table = Table::kNames) {
  KVFS_TRY(check_name(name));
  if (parent) KVFS_TRY(require_state(txn, parent));
  KVFS_ASSIGN(const auto taken, txn.get(table, name_key(parent, name)));
  if (taken) return fail(ErrorCode::kExists, std::string(name), "the name is taken");
  return {};
}

// The version that the state shows: none, or one it holds. Counts its bytes as logical.
Status adopt(TransactionScope& scope, VersionId id) {
  if (!id) return {};
  KVFS_TRY(hold(scope, id));
  KVFS_ASSIGN(const VersionRecord version, read_version(scope.txn, id));
  scope.counters.statistics.bytes_logical += version.kv_bytes;
  return {};
}

Status abandon(TransactionScope& scope, VersionId id) {
  if (!id) return {};
  KVFS_ASSIGN(const VersionRecord version, read_version(scope.txn, id));
  scope.counters.statistics.bytes_logical -= version.kv_bytes;
  return release(scope, id);
}

Status refuse_own_descendant(const Txn& txn, StateId id, StateId new_parent) {
  for (StateId above = new_parent; above;) {
    if (above == id) {
      return fail(ErrorCode::kInvalid, "move " + name_of(id), "it would lie inside itself");
    }
    KVFS_ASSIGN(const StateRecord state, read_state(txn, above));
    above = state.parent;
  }
  return {};
}

tl::unexpected<Error> not_empty(const std::string& name, const std::string& what) {
  return fail(ErrorCode::kNotEmpty, "remove state " + name, "it has " + what, "remove these first");
}

// Rows of a table of names, those of one state, after a name.
Result<std::vector<NameEntry>> list_rows(const Txn& txn, Table table, StateId parent,
                                         std::string_view after, std::size_t limit) {
  std::vector<NameEntry> entries;
  const Key prefix = key_of(parent);
  KVFS_ASSIGN(Cursor cursor, Cursor::open(txn, table));
  KVFS_ASSIGN(bool found, cursor.seek(name_key(parent, after)));
  while (found && entries.size() < limit && starts_with(cursor.key(), prefix)) {
    const std::string_view name = as_text(cursor.key().subspan(sizeof(std::uint64_t)));
    if (name != after) {
      KVFS_ASSIGN(NameEntry entry, parse_entry(name, cursor.value()));
      entries.push_back(std::move(entry));
    }
    KVFS_ASSIGN(found, cursor.next());
  }
  return entries;
}

}  // namespace

Result<std::string> path_of(const Txn& txn, StateId id) {
  std::string path;
  while (id) {
    KVFS_ASSIGN(const StateRecord state, read_state(txn, id));
    path = (!state.parent ? "" : state.snapshot ? "@" : "/") + state.name + path;
    id = state.parent;
  }
  return path;
}

Status require_removable(const Txn& txn, StateId id, const StateRecord& state) {
  if (state.pinned) {
    return fail(ErrorCode::kPermission, "remove state " + state.name, "it is pinned",
                "unpin it first");
  }
  if (state.snapshot) return {};
  KVFS_ASSIGN(const auto inside, list_names(txn, id, "", 1));
  if (!inside.empty()) {
    const bool child = inside.front().kind == NameEntry::Kind::kState;
    return not_empty(
        state.name,
        (child ? "children, such as " : "files that users left, such as ") + inside.front().name);
  }
  KVFS_ASSIGN(const auto snapshots, list_snapshots(txn, id, 1));
  if (!snapshots.empty()) {
    return not_empty(state.name, "snapshots, such as " + snapshots.front().name);
  }
  return {};
}

Result<NameEntry> parse_entry(std::string_view name, ByteSpan value) {
  ByteReader in(value);
  NameEntry entry{.kind = static_cast<NameEntry::Kind>(in.number<std::uint8_t>()),
                  .name = std::string(name)};
  const auto id = in.number<std::uint64_t>();
  if (!in.ok() || entry.kind > NameEntry::Kind::kSymlink) {
    return fail(ErrorCode::kCorrupt, "name " + entry.name, "its record does not parse",
                "run kvfsd --check");
  }
  if (entry.kind == NameEntry::Kind::kState) {
    entry.state = StateId{id};
  } else {
    entry.file = FileId{id};
  }
  return entry;
}

Bytes encode_entry(NameEntry::Kind kind, std::uint64_t id) {
  ByteWriter out;
  out.number(static_cast<std::uint8_t>(kind));
  out.number(id);
  return out.take();
}

Status check_name(std::string_view name) {
  const auto refuse = [&](const char* why) {
    return fail(ErrorCode::kInvalid, "name \"" + std::string(name) + "\"", why, "take another one");
  };
  if (name.empty()) return refuse("it is empty");
  if (name.size() > kMaxName) return refuse("it is longer than 255 bytes");
  if (name == "." || name == "..") return refuse("it means a directory already");
  if (name.find('/') != name.npos) return refuse("it holds a slash");
  if (name.find('\0') != name.npos) return refuse("it holds a zero byte");
  return {};
}

Result<StateRecord> read_state(const Txn& txn, StateId id) {
  KVFS_ASSIGN(const auto bytes, txn.get(Table::kStates, key_of(id)));
  if (!bytes) return fail(ErrorCode::kNotFound, name_of(id), "there is no such state");
  return decode_state(*bytes, name_of(id));
}

Status require_state(const Txn& txn, StateId id) {
  KVFS_ASSIGN(const auto bytes, txn.get(Table::kStates, key_of(id)));
  if (!bytes) return fail(ErrorCode::kNotFound, name_of(id), "there is no such state");
  return {};
}

Result<NameEntry> read_name(const Txn& txn, StateId parent, std::string_view name) {
  KVFS_TRY(check_name(name));
  KVFS_ASSIGN(const auto value, txn.get(Table::kNames, name_key(parent, name)));
  if (!value) return fail(ErrorCode::kNotFound, std::string(name), "there is no such name");
  return parse_entry(name, *value);
}

Result<std::vector<NameEntry>> list_names(const Txn& txn, StateId parent, std::string_view after,
                                          std::size_t limit) {
  return list_rows(txn, Table::kNames, parent, after, limit);
}

Result<StateId> read_snapshot(const Txn& txn, StateId of, std::string_view name) {
  KVFS_TRY(check_name(name));
  KVFS_ASSIGN(const auto value, txn.get(Table::kSnapshots, name_key(of, name)));
  if (!value) {
    return fail(ErrorCode::kNotFound, "snapshot " + std::string(name), "the state has none such");
  }
  KVFS_ASSIGN(const NameEntry entry, parse_entry(name, *value));
  return entry.state;
}

Result<std::vector<NameEntry>> list_snapshots(const Txn& txn, StateId of, std::size_t limit) {
  return list_rows(txn, Table::kSnapshots, of, "", limit);
}

// --- WriteTransaction ---------------------------------------------------------------------------

Result<StateRecord> WriteTransaction::state(StateId id) { return read_state(scope_.txn, id); }

Result<NameEntry> WriteTransaction::lookup(StateId parent, std::string_view name) {
  return read_name(scope_.txn, parent, name);
}

Result<StateId> WriteTransaction::create_state(const StateRecord& record) {
  KVFS_TRY(require_place(scope_.txn, record.parent, record.name, table_of(record)));
  KVFS_TRY(adopt(scope_, record.version));
  const StateId id{scope_.counters.next_inode++};
  KVFS_TRY(put_state(scope_.txn, id, record));
  KVFS_TRY(put_name(scope_.txn, record, id));
  ++scope_.counters.statistics.states;
  KVFS_TRY(note_change(
      scope_, {.kind = Change::Kind::kCreated, .state = id, .directories = {record.parent}}));
  return id;
}

Result<StateId> WriteTransaction::create_snapshot(StateId of, std::string_view name,
                                                  std::int64_t now_ns) {
  KVFS_ASSIGN(StateRecord record, read_state(scope_.txn, of));
  if (record.snapshot) {
    return fail(ErrorCode::kPermission, "snapshot " + std::string(name),
                "a snapshot has no snapshots of its own", "take one of a fork of it");
  }
  record.parent = of;
  record.name = name;
  record.snapshot = true;
  record.pinned = false;
  record.created_ns = now_ns;
  KVFS_ASSIGN(const StateId id, create_state(record));
  KVFS_TRY(copy_nodes(of, id));
  return id;
}

Status WriteTransaction::remove_state(StateId id) {
  KVFS_ASSIGN(const StateRecord state, read_state(scope_.txn, id));
  KVFS_TRY(require_removable(scope_.txn, id, state));
  KVFS_TRY(note_change(
      scope_, {.kind = Change::Kind::kRemoved, .state = id, .directories = {state.parent}}));
  KVFS_TRY(abandon(scope_, state.version));
  KVFS_TRY(remove_nodes_of(scope_, id));
  KVFS_TRY(remove_files_of(scope_.txn, id));
  KVFS_TRY(remove_finished_jobs_of(scope_.txn, id));
  KVFS_TRY(erase_name(scope_.txn, state));
  KVFS_TRY(scope_.txn.erase(Table::kStates, key_of(id)));
  --scope_.counters.statistics.states;
  return {};
}

Status WriteTransaction::rename_state(StateId id, StateId new_parent, std::string_view new_name) {
  KVFS_ASSIGN(StateRecord state, read_state(scope_.txn, id));
  if (state.parent == new_parent && state.name == new_name) return {};
  if (state.snapshot && state.parent != new_parent) {
    return fail(ErrorCode::kInvalid, "move snapshot " + state.name,
                "it is one of the state it was taken of", "fork it");
  }
  KVFS_TRY(require_place(scope_.txn, new_parent, new_name, table_of(state)));
  KVFS_TRY(refuse_own_descendant(scope_.txn, id, new_parent));
  KVFS_ASSIGN(std::string before, path_of(scope_.txn, id));
  std::vector<StateId> directories = {state.parent, new_parent};
  KVFS_TRY(erase_name(scope_.txn, state));
  state.parent = new_parent;
  state.name = new_name;
  KVFS_TRY(put_name(scope_.txn, state, id));
  KVFS_TRY(put_state(scope_.txn, id, state));
  return note_change(scope_, {.kind = Change::Kind::kRenamed,
                              .state = id,
                              .before = std::move(before),
                              .directories = std::move(directories)});
}

Status WriteTransaction::update_state(StateId id, const StateRecord& record) {
  KVFS_ASSIGN(const StateRecord stored, read_state(scope_.txn, id));
  StateRecord state = record;
  state.parent = stored.parent;
  state.name = stored.name;
  state.version = stored.version;
  state.snapshot = stored.snapshot;
  KVFS_TRY(put_state(scope_.txn, id, state));
  if (settings(state) == settings(stored)) return {};
  return note_change(scope_, {.kind = Change::Kind::kChanged, .state = id});
}

Status WriteTransaction::set_version(StateId id, VersionId version) {
  KVFS_ASSIGN(StateRecord state, read_state(scope_.txn, id));
  KVFS_TRY(adopt(scope_, version));
  KVFS_TRY(abandon(scope_, state.version));
  state.version = version;
  KVFS_TRY(put_state(scope_.txn, id, state));
  return note_change(scope_, {.kind = Change::Kind::kAdvanced, .state = id, .version = version});
}

}  // namespace kvfs::store

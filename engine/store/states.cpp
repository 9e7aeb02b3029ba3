#include "engine/store/states.h"

#include <algorithm>
#include <string>

#include "engine/store/files.h"
#include "engine/store/jobs.h"
#include "engine/store/keys.h"
#include "engine/store/layouts.h"
#include "engine/store/versions.h"
#include "engine/store/write_transaction.h"

namespace kvfs::store {
namespace {

constexpr std::size_t kMaxName = 255;

std::string name_of(StateId id) { return "state " + std::to_string(id.value); }

Key name_key(StateId parent, std::string_view name) { return Key().id(parent).name(name); }

Result<NameEntry> parse_entry(std::string_view name, ByteSpan value) {
  ByteReader in(value);
  NameEntry entry{.kind = static_cast<NameEntry::Kind>(in.number<std::uint8_t>()),
                  .name = std::string(name),
                  .state = in.id<StateId>()};
  if (!in.ok() || entry.kind > NameEntry::Kind::kSymlink) {
    return fail(ErrorCode::kCorrupt, "name " + entry.name, "its record does not parse",
                "run kvfsd --check");
  }
  return entry;
}

Status put_name(Txn& txn, StateId parent, std::string_view name, StateId state) {
  ByteWriter out;
  out.number(static_cast<std::uint8_t>(NameEntry::Kind::kState));
  out.id(state);
  return txn.put(Table::kNames, name_key(parent, name), out.bytes());
}

Status put_state(Txn& txn, StateId id, const StateRecord& state) {
  return txn.put(Table::kStates, key_of(id), encode(state));
}

// The parent is there and the name free.
Status require_place(const Txn& txn, StateId parent, std::string_view name) {
  KVFS_TRY(check_name(name));
  if (parent) KVFS_TRY(require_state(txn, parent));
  KVFS_ASSIGN(const auto taken, txn.get(Table::kNames, name_key(parent, name)));
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

}  // namespace

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
  std::vector<NameEntry> entries;
  const Key prefix = key_of(parent);
  KVFS_ASSIGN(Cursor cursor, Cursor::open(txn, Table::kNames));
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

// --- WriteTransaction ---------------------------------------------------------------------------

Result<StateRecord> WriteTransaction::state(StateId id) { return read_state(scope_.txn, id); }

Result<NameEntry> WriteTransaction::lookup(StateId parent, std::string_view name) {
  return read_name(scope_.txn, parent, name);
}

Result<StateId> WriteTransaction::create_state(const StateRecord& record) {
  KVFS_TRY(require_place(scope_.txn, record.parent, record.name));
  KVFS_TRY(adopt(scope_, record.version));
  const StateId id{scope_.counters.next_inode++};
  KVFS_TRY(put_state(scope_.txn, id, record));
  KVFS_TRY(put_name(scope_.txn, record.parent, record.name, id));
  ++scope_.counters.statistics.states;
  return id;
}

Status WriteTransaction::remove_state(StateId id) {
  KVFS_ASSIGN(const StateRecord state, read_state(scope_.txn, id));
  KVFS_ASSIGN(const auto children, list_names(scope_.txn, id, "", 1));
  if (!children.empty()) {
    return fail(ErrorCode::kNotEmpty, "remove state " + state.name,
                "it has children, such as " + children.front().name, "remove these first");
  }
  KVFS_TRY(abandon(scope_, state.version));
  KVFS_TRY(remove_files_of(scope_.txn, id));
  KVFS_TRY(remove_finished_jobs_of(scope_.txn, id));
  KVFS_TRY(scope_.txn.erase(Table::kNames, name_key(state.parent, state.name)));
  KVFS_TRY(scope_.txn.erase(Table::kStates, key_of(id)));
  --scope_.counters.statistics.states;
  return {};
}

Status WriteTransaction::rename_state(StateId id, StateId new_parent, std::string_view new_name) {
  KVFS_ASSIGN(StateRecord state, read_state(scope_.txn, id));
  if (state.parent == new_parent && state.name == new_name) return {};
  KVFS_TRY(require_place(scope_.txn, new_parent, new_name));
  KVFS_TRY(refuse_own_descendant(scope_.txn, id, new_parent));
  KVFS_TRY(scope_.txn.erase(Table::kNames, name_key(state.parent, state.name)));
  state.parent = new_parent;
  state.name = new_name;
  KVFS_TRY(put_name(scope_.txn, new_parent, new_name, id));
  return put_state(scope_.txn, id, state);
}

Status WriteTransaction::update_state(StateId id, const StateRecord& record) {
  KVFS_ASSIGN(const StateRecord stored, read_state(scope_.txn, id));
  StateRecord state = record;
  state.parent = stored.parent;
  state.name = stored.name;
  state.version = stored.version;
  return put_state(scope_.txn, id, state);
}

Status WriteTransaction::set_version(StateId id, VersionId version) {
  KVFS_ASSIGN(StateRecord state, read_state(scope_.txn, id));
  KVFS_TRY(adopt(scope_, version));
  KVFS_TRY(abandon(scope_, state.version));
  state.version = version;
  return put_state(scope_.txn, id, state);
}

}  // namespace kvfs::store

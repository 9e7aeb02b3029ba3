#include "engine/store/files.h"

#include <string>

#include "engine/store/keys.h"
#include "engine/store/layouts.h"
#include "engine/store/states.h"
#include "engine/store/write_transaction.h"

namespace kvfs::store {
namespace {

Key file_key(StateId state, FileArea area, std::string_view name) {
  return Key().id(state).area(area).name(name);
}

}  // namespace

Result<FileRecord> read_file(const Txn& txn, StateId state, FileArea area, std::string_view name) {
  KVFS_TRY(check_name(name));
  KVFS_ASSIGN(const auto bytes, txn.get(Table::kFiles, file_key(state, area, name)));
  if (!bytes) return fail(ErrorCode::kNotFound, std::string(name), "there is no such file");
  return decode_file(*bytes, "file " + std::string(name));
}

Result<std::vector<std::string>> list_files(const Txn& txn, StateId state, FileArea area) {
  std::vector<std::string> names;
  const Key prefix = Key().id(state).area(area);
  KVFS_ASSIGN(Cursor cursor, Cursor::open(txn, Table::kFiles));
  KVFS_ASSIGN(bool found, cursor.seek(prefix));
  while (found && starts_with(cursor.key(), prefix)) {
    names.emplace_back(as_text(cursor.key().subspan(ByteSpan(prefix).size())));
    KVFS_ASSIGN(found, cursor.next());
  }
  return names;
}

Status remove_files_of(Txn& txn, StateId state) {
  for (FileArea area : {FileArea::kReply, FileArea::kKept, FileArea::kUser, FileArea::kLogprobs}) {
    KVFS_ASSIGN(const auto names, list_files(txn, state, area));
    for (const std::string& name : names) {
      KVFS_TRY(txn.erase(Table::kFiles, file_key(state, area, name)));
    }
  }
  return {};
}

Result<FileId> WriteTransaction::put_file(StateId state, FileArea area, std::string_view name,
                                          const FileRecord& record) {
  KVFS_TRY(require_state(scope_.txn, state));
  KVFS_TRY(check_name(name));
  FileRecord file = record;
  if (const auto old = read_file(scope_.txn, state, area, name)) {
    file.id = old->id;
  } else if (old.error().code == ErrorCode::kNotFound) {
    file.id = FileId{scope_.counters.next_inode++};
  } else {
    return fail(old.error());
  }
  KVFS_TRY(scope_.txn.put(Table::kFiles, file_key(state, area, name), encode(file)));
  return file.id;
}

Status WriteTransaction::remove_file(StateId state, FileArea area, std::string_view name) {
  KVFS_TRY(check_name(name));
  KVFS_ASSIGN(const bool was_there, scope_.txn.erase(Table::kFiles, file_key(state, area, name)));
  if (!was_there) return fail(ErrorCode::kNotFound, std::string(name), "there is no such file");
  return {};
}

}  // namespace kvfs::store

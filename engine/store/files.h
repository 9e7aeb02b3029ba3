// The table files: replies, spooled prompts and what users leave beside a state.
#pragma once

#include "engine/store/transaction_scope.h"

namespace kvfs::store {

Result<FileRecord> read_file(const Txn& txn, StateId state, FileArea area, std::string_view name);
Result<std::vector<std::string>> list_files(const Txn& txn, StateId state, FileArea area);
Status remove_files_of(Txn& txn, StateId state);

}  // namespace kvfs::store

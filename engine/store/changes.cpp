#include "engine/store/changes.h"

#include "engine/store/states.h"
#include "engine/store/transaction_scope.h"

namespace kvfs::store {

std::string_view name_of(Change::Kind kind) {
  switch (kind) {
    case Change::Kind::kCreated:
      return "created";
    case Change::Kind::kRemoved:
      return "removed";
    case Change::Kind::kRenamed:
      return "renamed";
    case Change::Kind::kChanged:
      return "changed";
    case Change::Kind::kAdvanced:
      return "advanced";
    case Change::Kind::kJob:
      return "job";
    case Change::Kind::kFileCreated:
      return "file-created";
    case Change::Kind::kFileRenamed:
      return "file-renamed";
    case Change::Kind::kFileRemoved:
      return "file-removed";
    case Change::Kind::kStaged:
      return "staged";
  }
  return "";
}

Status note_change(TransactionScope& scope, Change change) {
  if (!scope.watched) return {};
  // Of a job whose state was removed meanwhile no path is left.
  auto path = path_of(scope.txn, change.state);
  if (path)
    change.path = *std::move(path);
  else if (path.error().code != ErrorCode::kNotFound)
    return fail(path.error());
  scope.changes.push_back(std::move(change));
  return {};
}

}  // namespace kvfs::store

#include "engine/sched/archive_import.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "engine/sched/params.h"
#include "engine/store/archive.h"
#include "engine/store/write_transaction.h"

namespace kvfs::sched {
namespace {

using store::Archive;
using store::ArchiveTable;

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

tl::unexpected<Error> damaged(std::string why) {
  return fail(ErrorCode::kInvalid, "archive", std::move(why),
              "copy it again, or export the state anew");
}

// The model that a version names, where it is here: of its shapes, with its tokens.
Result<const model::ModelCard*> card_of(Catalog& catalog, const store::VersionRecord& version) {
  const auto card = catalog.card(version.model);
  if (!card || (*card)->info.fingerprint != version.fingerprint) return nullptr;
  if (version.layers != (*card)->info.layers) {
    return damaged("it says model " + version.model + ", whose layers are others");
  }
  return *card;
}

Status check_tokens(const ArchiveTable& table, const store::VersionRecord& version,
                    const model::ModelCard& card) {
  for (const BlockId block : version.blocks) {
    for (const store::BlockToken& token : table.blocks[block.value].tokens) {
      if (token.token < -1 || token.token >= card.info.vocab_size) {
        return damaged("token " + std::to_string(token.token) + " is not in the vocabulary of " +
                       version.model);
      }
    }
  }
  return {};
}

Status check(Catalog& catalog, const ArchiveTable& table, bool replaces) {
  for (const store::VersionRecord& version : table.versions) {
    KVFS_ASSIGN(const model::ModelCard* card, card_of(catalog, version));
    if (card != nullptr) KVFS_TRY(check_tokens(table, version, *card));
  }
  bool alone = table.states.size() == 1;
  for (const ArchiveTable::State& state : table.states) {
    const bool snapshot = &state != &table.states.front();
    if (snapshot) KVFS_TRY(check_state_name({}, state.name));
    for (const auto& [name, value] : state.params) {
      if (name == "model") continue;  // it may come later
      KVFS_ASSIGN(const std::string checked, check_param(name, value));
    }
    for (const ArchiveTable::File& file : state.files) {
      alone = false;
      KVFS_TRY(check_state_name({}, file.name));
      if (is_reserved_name(file.name)) return damaged("a file in it is called " + file.name);
    }
  }
  if (alone || !replaces) return {};
  return fail(ErrorCode::kExists, "archive",
              "it holds files or snapshots, and a state of that name is there",
              "choose another name, or remove that state first");
}

Status add_files(store::WriteTransaction& tx, StateId id, const Archive& archive,
                 const ArchiveTable::State& state, const Owner& owner) {
  for (const ArchiveTable::File& file : state.files) {
    const store::FileNode node{.kind = file.kind,
                               .uid = owner.uid,
                               .gid = owner.gid,
                               .mode = file.mode & 0777,
                               .size = file.size,
                               .modified_ns = file.modified_ns,
                               .changed_ns = now_ns(),
                               .target = file.target};
    KVFS_ASSIGN(const FileId made, tx.create_node({id, file.name}, node));
    store::FileWrite write{.node = node};
    for (const auto& piece : file.pieces) {
      KVFS_ASSIGN(auto bytes, archive.piece(piece));
      write.pieces.push_back(std::move(bytes));
    }
    KVFS_TRY(tx.write_node(made, write));
  }
  return {};
}

Status drop_files(store::WriteTransaction& tx, StateId id, const ArchiveTable::State& state) {
  for (const ArchiveTable::File& file : state.files) {
    KVFS_ASSIGN(const FileId gone, tx.unlink_node({id, file.name}));
    KVFS_TRY(tx.reap_node(gone));
  }
  return {};
}

// What the archive's versions are in the store, added by this transaction when first asked for.
class Versions {
 public:
  Versions(const ArchiveTable& table, const Archive::Stored& stored)
      : table_(table), stored_(stored), ids_(table.versions.size()) {}

  Result<VersionId> get(store::WriteTransaction& tx, std::uint32_t number) {
    if (ids_[number]) return ids_[number];
    KVFS_ASSIGN(ids_[number], tx.add_version(stored_.versions[number]));
    KVFS_ASSIGN(const store::VersionRecord made, tx.version(ids_[number]));
    const store::VersionRecord& said = table_.versions[number];
    if (made.root != said.root || made.n_tokens != said.n_tokens) {
      return damaged("what it holds does not have the root that it says");
    }
    return ids_[number];
  }

 private:
  const ArchiveTable& table_;
  const Archive::Stored& stored_;
  std::vector<VersionId> ids_;
};

// Makes the state what one of the archive's is.
Status become(store::WriteTransaction& tx, StateId id, Versions& versions,
              const ArchiveTable::State& state) {
  KVFS_ASSIGN(store::StateRecord record, tx.state(id));
  VersionId version;
  if (state.version) {
    KVFS_ASSIGN(version, versions.get(tx, *state.version));
  }
  KVFS_TRY(tx.set_version(id, version));
  record.params = state.params;
  return tx.update_state(id, record);
}

}  // namespace

Result<StateId> import_archive(store::Store& store, Scheduler& scheduler, Catalog& catalog,
                               const BundleImport& wanted, const ImportPlace& place) {
  KVFS_ASSIGN(const Archive archive, Archive::read(wanted.file));
  const ArchiveTable& table = archive.table();
  KVFS_TRY(check(catalog, table, place.state.has_value()));
  KVFS_ASSIGN(const Archive::Stored stored,
              archive.store_blocks(
                  store,
                  [&](const store::VersionRecord& version) -> Archive::Speller {
                    const auto card = card_of(catalog, version);
                    if (!card || *card == nullptr) return {};
                    return
                        [card = *card](TokenId token) { return card->tokenizer->bytes_of(token); };
                  },
                  [&scheduler] { return scheduler.imports_given_up(); }));
  StateId id = place.state.value_or(StateId{});
  const Status written = store.write([&](store::WriteTransaction& tx) -> Status {
    Versions versions(table, stored);
    if (place.state) {
      KVFS_ASSIGN(const store::StateRecord now, tx.state(id));
      if (now.version != place.record.version) {
        return fail(ErrorCode::kBusy, "state " + wanted.name, "it advanced meanwhile", "try again");
      }
    } else {
      KVFS_ASSIGN(id, tx.create_state(place.record));
    }
    for (std::size_t i = 1; i < table.states.size(); ++i) {
      const ArchiveTable::State& snapshot = table.states[i];
      KVFS_TRY(become(tx, id, versions, snapshot));
      KVFS_TRY(add_files(tx, id, archive, snapshot, wanted.owner));
      KVFS_TRY(tx.create_snapshot(id, snapshot.name, now_ns()));
      KVFS_TRY(drop_files(tx, id, snapshot));
    }
    KVFS_TRY(become(tx, id, versions, table.states.front()));
    KVFS_TRY(add_files(tx, id, archive, table.states.front(), wanted.owner));
    KVFS_ASSIGN(store::StateRecord record, tx.state(id));
    record.advanced_ns = wanted.modified_ns != 0 ? wanted.modified_ns : now_ns();
    if (!wanted.model.empty()) record.params["model"] = wanted.model;
    return tx.update_state(id, record);
  });
  KVFS_TRY(written);
  scheduler.advanced(id);
  return id;
}

}  // namespace kvfs::sched

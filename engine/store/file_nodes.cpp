#include "engine/store/file_nodes.h"

#include <algorithm>
#include <limits>
#include <string>

#include "engine/store/chunks.h"
#include "engine/store/digests.h"
#include "engine/store/keys.h"
#include "engine/store/layouts.h"
#include "engine/store/states.h"
#include "engine/store/versions.h"
#include "engine/store/write_transaction.h"

namespace kvfs::store {
namespace {

std::string name_of(FileId id) { return "file " + std::to_string(id.value); }

constexpr std::size_t kMaxPath = 500;  // LMDB's longest key is 511 bytes, 8 of them the state's

Table table_of(const FilePlace& place) { return place.staged ? Table::kStaged : Table::kNames; }
Key key_of_place(const FilePlace& place) { return Key().id(place.directory).name(place.name); }
Key extent_key(FileId id, std::uint64_t number) {
  return Key().id(id).id(NumberId<struct PieceNumber>{number});
}

Status put_node(Txn& txn, FileId id, const FileNode& node) {
  return txn.put(Table::kNodes, key_of(id), encode(node));
}

Status check_place(const Txn& txn, const FilePlace& place) {
  if (place.directory) KVFS_TRY(require_state(txn, place.directory));
  if (!place.staged) return check_name(place.name);
  if (!place.name.empty() && place.name.size() <= kMaxPath) return {};
  return fail(ErrorCode::kInvalid, "copying to " + place.name, "the path is too long");
}

Result<std::optional<NameEntry>> find_entry(const Txn& txn, const FilePlace& place) {
  KVFS_ASSIGN(const auto value, txn.get(table_of(place), key_of_place(place)));
  if (!value) return std::nullopt;
  KVFS_ASSIGN(NameEntry entry, parse_entry(place.name, *value));
  return entry;
}

tl::unexpected<Error> no_such_file(const std::string& name) {
  return fail(ErrorCode::kNotFound, name, "there is no such file");
}

Result<NameEntry> require_file(const Txn& txn, const FilePlace& place) {
  KVFS_ASSIGN(const auto entry, find_entry(txn, place));
  if (!entry || entry->kind == NameEntry::Kind::kState) return no_such_file(place.name);
  return *entry;
}

// --- pieces

Result<std::uint32_t> piece_references(const Txn& txn, const PieceId& id) {
  KVFS_ASSIGN(const auto value, txn.get(Table::kPieceReferences, id.bytes));
  if (!value) return 0;
  ByteReader in(*value);
  return in.number<std::uint32_t>();
}

Status put_references(Txn& txn, const PieceId& id, std::uint32_t references) {
  ByteWriter out;
  out.number(references);
  return txn.put(Table::kPieceReferences, id.bytes, out.bytes());
}

Status refer_to_piece(Txn& txn, const PieceId& id) {
  KVFS_ASSIGN(const std::uint32_t references, piece_references(txn, id));
  return put_references(txn, id, references + 1);
}

Status drop_piece(Txn& txn, const PieceId& id) {
  KVFS_ASSIGN(const std::uint32_t references, piece_references(txn, id));
  if (references > 1) return put_references(txn, id, references - 1);
  KVFS_TRY(txn.erase(Table::kPieceReferences, id.bytes));
  KVFS_TRY(txn.erase(Table::kPieces, id.bytes));
  return {};
}

// The piece that holds these bytes, with a reference more.
Result<PieceId> put_piece(Txn& txn, ByteSpan bytes) {
  for (std::uint64_t seed = 0; seed < kMaxSeeds; ++seed) {
    const PieceId id{hash128(bytes, seed)};
    KVFS_ASSIGN(const auto there, txn.get(Table::kPieces, id.bytes));
    if (there && !std::ranges::equal(*there, bytes)) continue;
    if (!there) KVFS_TRY(txn.put(Table::kPieces, id.bytes, bytes));
    KVFS_TRY(refer_to_piece(txn, id));
    return id;
  }
  return fail(ErrorCode::kInternal, "store a piece of a file",
              "its hash collides under every seed");
}

Result<std::optional<PieceId>> read_extent(const Txn& txn, FileId id, std::uint64_t number) {
  KVFS_ASSIGN(const auto value, txn.get(Table::kExtents, extent_key(id, number)));
  if (!value) return std::nullopt;
  ByteReader in(*value);
  const auto piece = in.digest<PieceId>();
  if (!in.ok()) return fail(ErrorCode::kCorrupt, name_of(id), "an extent does not parse");
  return piece;
}

Status erase_extent(Txn& txn, FileId id, std::uint64_t number, std::uint64_t& pieces) {
  KVFS_ASSIGN(const auto piece, read_extent(txn, id, number));
  if (!piece) return {};
  KVFS_TRY(drop_piece(txn, *piece));
  KVFS_TRY(txn.erase(Table::kExtents, extent_key(id, number)));
  --pieces;
  return {};
}

Status cut(Txn& txn, FileId id, std::uint64_t keep_below, std::uint64_t& pieces) {
  for (;;) {
    KVFS_ASSIGN(const auto next, find_piece(txn, id, keep_below));
    if (!next) return {};
    KVFS_TRY(erase_extent(txn, id, *next, pieces));
  }
}

bool all_zero(ByteSpan bytes) {
  return std::ranges::all_of(bytes, [](std::uint8_t byte) { return byte == 0; });
}

Status put_extent(Txn& txn, FileId id, const FilePiece& piece, const FileNode& node,
                  std::uint64_t& pieces) {
  KVFS_TRY(erase_extent(txn, id, piece.number, pieces));
  // Zeros need no piece where nothing else would show through.
  const bool bare = piece.number * kPieceBytes >= node.source_bytes;
  if (piece.bytes.empty() || (bare && all_zero(piece.bytes))) return {};
  KVFS_ASSIGN(const PieceId content, put_piece(txn, piece.bytes));
  KVFS_TRY(txn.put(Table::kExtents, extent_key(id, piece.number), content.bytes));
  ++pieces;
  return {};
}

Status erase_node(TransactionScope& scope, FileId id) {
  KVFS_ASSIGN(FileNode node, read_node(scope.txn, id));
  KVFS_TRY(cut(scope.txn, id, 0, node.pieces));
  if (node.source) KVFS_TRY(release(scope, node.source));
  KVFS_TRY(scope.txn.erase(Table::kNodes, key_of(id)));
  return {};
}

Status copy_extents(Txn& txn, FileId from, FileId to) {
  for (std::uint64_t number = 0;; ++number) {
    KVFS_ASSIGN(const auto next, find_piece(txn, from, number));
    if (!next) return {};
    number = *next;
    KVFS_ASSIGN(const auto piece, read_extent(txn, from, number));
    KVFS_TRY(refer_to_piece(txn, *piece));
    KVFS_TRY(txn.put(Table::kExtents, extent_key(to, number), piece->bytes));
  }
}

Result<std::vector<NameEntry>> files_of(const Txn& txn, StateId state) {
  KVFS_ASSIGN(auto entries, list_names(txn, state, "", std::numeric_limits<std::size_t>::max()));
  std::erase_if(entries, [](const NameEntry& e) { return e.kind == NameEntry::Kind::kState; });
  return entries;
}

Status note_file(TransactionScope& scope, Change::Kind kind, const FilePlace& place,
                 const FilePlace& before) {
  if (!scope.watched) return {};
  Change change{.kind = place.staged ? Change::Kind::kStaged : kind,
                .state = place.directory,
                .file = place.name,
                .directories = {place.directory, before.directory}};
  if (change.kind == Change::Kind::kFileRenamed) {
    KVFS_ASSIGN(const std::string path, path_of(scope.txn, before.directory));
    change.before = path + (path.empty() ? "" : "/") + before.name;
  }
  return note_change(scope, std::move(change));
}

}  // namespace

bool is_piece(const PieceId& id, ByteSpan bytes) {
  for (std::uint64_t seed = 0; seed < kMaxSeeds; ++seed) {
    if (PieceId{hash128(bytes, seed)} == id) return true;
  }
  return false;
}

Result<FileNode> read_node(const Txn& txn, FileId id) {
  KVFS_ASSIGN(const auto bytes, txn.get(Table::kNodes, key_of(id)));
  if (!bytes) return no_such_file(name_of(id));
  return decode_node(*bytes, name_of(id));
}

Result<std::optional<Bytes>> read_piece(const Txn& txn, FileId id, std::uint64_t number) {
  KVFS_ASSIGN(const auto piece, read_extent(txn, id, number));
  if (!piece) return std::nullopt;
  KVFS_ASSIGN(const auto bytes, txn.get(Table::kPieces, piece->bytes));
  if (!bytes || !is_piece(*piece, *bytes)) {
    return fail(ErrorCode::kCorrupt, name_of(id),
                "piece " + std::to_string(number) + (bytes ? " has another hash" : " is missing"),
                "run kvfsd --check and restore the store from a backup");
  }
  return Bytes(bytes->begin(), bytes->end());
}

Result<std::optional<std::uint64_t>> find_piece(const Txn& txn, FileId id, std::uint64_t from) {
  KVFS_ASSIGN(Cursor cursor, Cursor::open(txn, Table::kExtents));
  KVFS_ASSIGN(const bool found, cursor.seek(extent_key(id, from)));
  if (!found || !starts_with(cursor.key(), key_of(id))) return std::nullopt;
  return id_from_key<NumberId<struct PieceNumber>>(cursor.key(), sizeof(std::uint64_t)).value;
}

Result<NameEntry> read_staged(const Txn& txn, StateId state, std::string_view path) {
  return require_file(txn, {.directory = state, .name = std::string(path), .staged = true});
}

Result<std::vector<NameEntry>> list_staged(const Txn& txn, StateId state) {
  std::vector<NameEntry> entries;
  const Key prefix = key_of(state);
  KVFS_ASSIGN(Cursor cursor, Cursor::open(txn, Table::kStaged));
  KVFS_ASSIGN(bool found, cursor.seek(prefix));
  while (found && starts_with(cursor.key(), prefix)) {
    const auto path = as_text(cursor.key().subspan(sizeof(std::uint64_t)));
    KVFS_ASSIGN(NameEntry entry, parse_entry(path, cursor.value()));
    entries.push_back(std::move(entry));
    KVFS_ASSIGN(found, cursor.next());
  }
  return entries;
}

Result<std::vector<StateId>> list_staging_states(const Txn& txn) {
  std::vector<StateId> states;
  KVFS_ASSIGN(Cursor cursor, Cursor::open(txn, Table::kStaged));
  KVFS_ASSIGN(bool found, cursor.seek({}));
  while (found) {
    const auto state = id_from_key<StateId>(cursor.key());
    if (states.empty() || states.back() != state) states.push_back(state);
    KVFS_ASSIGN(found, cursor.next());
  }
  return states;
}

Status remove_nodes_of(TransactionScope& scope, StateId state) {
  KVFS_ASSIGN(const auto files, files_of(scope.txn, state));
  for (const NameEntry& entry : files) {
    KVFS_TRY(erase_node(scope, entry.file));
    KVFS_TRY(scope.txn.erase(Table::kNames, key_of_place({state, entry.name})));
  }
  return WriteTransaction(scope).drop_staged(state);
}

Status reap_unlinked(TransactionScope& scope) {
  std::vector<FileId> lost;
  {
    KVFS_ASSIGN(Cursor cursor, Cursor::open(scope.txn, Table::kNodes));
    KVFS_ASSIGN(bool found, cursor.seek({}));
    while (found) {
      const auto id = id_from_key<FileId>(cursor.key());
      KVFS_ASSIGN(const FileNode node, decode_node(cursor.value(), name_of(id)));
      if (!node.linked) lost.push_back(id);
      KVFS_ASSIGN(found, cursor.next());
    }
  }
  for (const FileId id : lost) KVFS_TRY(erase_node(scope, id));
  return {};
}

// --- WriteTransaction ---------------------------------------------------------------------------

Result<FileId> WriteTransaction::create_node(const FilePlace& place, const FileNode& node) {
  KVFS_TRY(check_place(scope_.txn, place));
  KVFS_ASSIGN(const auto taken, find_entry(scope_.txn, place));
  if (taken) return fail(ErrorCode::kExists, place.name, "the name is taken");
  const FileId id{scope_.counters.next_inode++};
  FileNode made = node;
  made.pieces = 0;
  made.linked = true;
  if (made.source) KVFS_TRY(hold(scope_, made.source));
  KVFS_TRY(put_node(scope_.txn, id, made));
  const auto kind =
      node.kind == FileKind::kSymlink ? NameEntry::Kind::kSymlink : NameEntry::Kind::kFile;
  KVFS_TRY(scope_.txn.put(table_of(place), key_of_place(place), encode_entry(kind, id.value)));
  KVFS_TRY(note_file(scope_, Change::Kind::kFileCreated, place, place));
  return id;
}

Result<std::optional<FileId>> WriteTransaction::move_node(const FilePlace& from,
                                                          const FilePlace& to, bool replace) {
  KVFS_TRY(check_place(scope_.txn, to));
  KVFS_ASSIGN(const NameEntry moved, require_file(scope_.txn, from));
  KVFS_ASSIGN(const auto there, find_entry(scope_.txn, to));
  std::optional<FileId> replaced;
  if (there) {
    if (!replace || there->kind == NameEntry::Kind::kState) {
      return fail(ErrorCode::kExists, to.name, "the name is taken");
    }
    if (there->file == moved.file) return std::nullopt;
    KVFS_ASSIGN(replaced, unlink_node(to));
  }
  KVFS_TRY(scope_.txn.erase(table_of(from), key_of_place(from)));
  KVFS_TRY(
      scope_.txn.put(table_of(to), key_of_place(to), encode_entry(moved.kind, moved.file.value)));
  KVFS_TRY(note_file(scope_, Change::Kind::kFileRenamed, to, from));
  return replaced;
}

Result<FileId> WriteTransaction::unlink_node(const FilePlace& place) {
  KVFS_ASSIGN(const NameEntry entry, require_file(scope_.txn, place));
  KVFS_ASSIGN(FileNode node, read_node(scope_.txn, entry.file));
  node.linked = false;
  KVFS_TRY(put_node(scope_.txn, entry.file, node));
  KVFS_TRY(scope_.txn.erase(table_of(place), key_of_place(place)));
  KVFS_TRY(note_file(scope_, Change::Kind::kFileRemoved, place, place));
  return entry.file;
}

Status WriteTransaction::reap_node(FileId id) {
  const auto node = read_node(scope_.txn, id);
  if (!node) return node.error().code == ErrorCode::kNotFound ? Status() : fail(node.error());
  return node->linked ? Status() : erase_node(scope_, id);
}

Status WriteTransaction::write_node(FileId id, const FileWrite& write) {
  KVFS_ASSIGN(const FileNode stored, read_node(scope_.txn, id));
  FileNode node = write.node;
  node.kind = stored.kind;
  node.linked = stored.linked;
  node.target = stored.target;
  node.pieces = stored.pieces;
  node.source_part = stored.source_part;
  node.source_bytes = std::min(node.source_bytes, stored.source_bytes);
  if (stored.source && node.source_bytes == 0) KVFS_TRY(release(scope_, stored.source));
  node.source = node.source_bytes == 0 ? VersionId{} : stored.source;
  KVFS_TRY(cut(scope_.txn, id, write.keep_below, node.pieces));
  for (const FilePiece& piece : write.pieces) {
    KVFS_TRY(put_extent(scope_.txn, id, piece, node, node.pieces));
  }
  return put_node(scope_.txn, id, node);
}

Status WriteTransaction::set_source(FileId id, VersionId version, DataPart part,
                                    std::uint64_t bytes) {
  KVFS_ASSIGN(FileNode node, read_node(scope_.txn, id));
  KVFS_TRY(hold(scope_, version));
  if (node.source) KVFS_TRY(release(scope_, node.source));
  KVFS_TRY(cut(scope_.txn, id, 0, node.pieces));
  node.source = version;
  node.source_part = part;
  node.source_bytes = node.size = bytes;
  return put_node(scope_.txn, id, node);
}

Status WriteTransaction::copy_nodes(StateId from, StateId to) {
  KVFS_ASSIGN(const auto files, files_of(scope_.txn, from));
  for (const NameEntry& entry : files) {
    KVFS_ASSIGN(const FileNode node, read_node(scope_.txn, entry.file));
    KVFS_ASSIGN(const FileId copy, create_node({to, entry.name}, node));
    KVFS_TRY(copy_extents(scope_.txn, entry.file, copy));
    FileNode made = node;
    made.linked = true;
    KVFS_TRY(put_node(scope_.txn, copy, made));
  }
  return {};
}

Result<FileNode> WriteTransaction::node(FileId id) { return read_node(scope_.txn, id); }

Result<std::vector<NameEntry>> WriteTransaction::staged(StateId state) {
  return list_staged(scope_.txn, state);
}

Status WriteTransaction::drop_staged(StateId state) {
  KVFS_ASSIGN(const auto entries, list_staged(scope_.txn, state));
  for (const NameEntry& entry : entries) {
    KVFS_ASSIGN(const FileId id, unlink_node({state, entry.name, true}));
    KVFS_TRY(reap_node(id));
  }
  return {};
}

}  // namespace kvfs::store

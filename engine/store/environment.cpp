#include "engine/store/environment.h"

#include <lmdb.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <compare>
#include <string>
#include <utility>

namespace kvfs::store {
namespace {

constexpr const char* kTableNames[kTables] = {
    "meta",     "chunks",     "blocks",          "block_digests", "block_references",
    "versions", "states",     "names",           "prefix",        "files",
    "jobs",     "state_jobs", "snapshots",       "staged",        "nodes",
    "extents",  "pieces",     "piece_references"};

constexpr std::uint64_t kSmallestMap = std::uint64_t{1} << 30;
constexpr unsigned kReaders = 1024;

MDB_val as_val(ByteSpan bytes) {
  return {bytes.size(), const_cast<std::uint8_t*>(bytes.data())};  // LMDB only reads it
}
ByteSpan as_span(const MDB_val& value) {
  return {static_cast<const std::uint8_t*>(value.mv_data), value.mv_size};
}

tl::unexpected<Error> failed(int rc, std::string what) {
  switch (rc) {
    case MDB_MAP_FULL:
      return fail(ErrorCode::kNoSpace, std::move(what), "the store's map is full",
                  "remove states or give the store a larger map");
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return fail(ErrorCode::kNoSpace, std::move(what), mdb_strerror(rc),
                  "free space on the store's disk or remove states");
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
      return fail(ErrorCode::kCorrupt, std::move(what), mdb_strerror(rc),
                  "restore data.mdb from a backup");
    case MDB_PANIC:
      return fail(ErrorCode::kIo, std::move(what), "an earlier write to the disk failed",
                  "check the disk and restart the daemon");
    case MDB_READERS_FULL:
      return fail(ErrorCode::kAgain, std::move(what), "too many reads at once");
    case EACCES:
    case EPERM:
    case EROFS:
      return fail(ErrorCode::kPermission, std::move(what), mdb_strerror(rc),
                  "give the daemon's user write access to the store");
    case MDB_BAD_VALSIZE:
    case MDB_BAD_TXN:
    case EINVAL:
      return fail(ErrorCode::kInternal, std::move(what), mdb_strerror(rc));
    default:
      return fail(ErrorCode::kIo, std::move(what), mdb_strerror(rc));
  }
}

// Whether a write that came out short did so because the disk, or the file, may not grow.
bool out_of_space(MDB_env* env) {
  constexpr std::uint64_t kLittle = std::uint64_t{128} << 20;  // more than one transaction writes
  int fd = -1;
  struct statvfs disk {};
  struct stat file {};
  struct rlimit limit {};
  if (mdb_env_get_fd(env, &fd) != 0 || fstatvfs(fd, &disk) != 0 || fstat(fd, &file) != 0 ||
      getrlimit(RLIMIT_FSIZE, &limit) != 0) {
    return false;
  }
  const auto size = static_cast<std::uint64_t>(file.st_size);
  return std::uint64_t{disk.f_bavail} * disk.f_frsize < kLittle ||
         (limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < size + kLittle);
}

// As LMDB orders keys: by bytes, the shorter one first.
std::strong_ordering compare(ByteSpan a, ByteSpan b) {
  return std::lexicographical_compare_three_way(a.begin(), a.end(), b.begin(), b.end());
}

std::string on_table(const char* verb, Table table) {
  return std::string(verb) + " the store's table " + kTableNames[static_cast<int>(table)];
}

}  // namespace

// --- Txn ----------------------------------------------------------------------------------------

Txn::Txn(Txn&& other) noexcept
    : env_(other.env_),
      txn_(std::exchange(other.txn_, nullptr)),
      tables_(other.tables_),
      touched_(other.touched_),
      overlay_(std::move(other.overlay_)) {}

Txn::~Txn() {
  if (txn_) mdb_txn_abort(txn_);
}

Result<Txn> Txn::begin_nested(TouchedKeys* touched) {
  MDB_txn* txn = nullptr;
  if (int rc = mdb_txn_begin(env_, txn_, 0, &txn)) return failed(rc, "begin a transaction");
  Txn nested(env_, txn, tables_);
  nested.touched_ = touched;
  return nested;
}

Status Txn::commit() {
  int rc = mdb_txn_commit(std::exchange(txn_, nullptr));
  if (rc == EIO && out_of_space(env_)) rc = ENOSPC;  // LMDB's word for a short write is EIO
  if (rc) return failed(rc, "commit to the store");
  return {};
}

Result<std::optional<ByteSpan>> Txn::get(Table table, ByteSpan key) const {
  if (overlay_) {
    const Overlay::Rows& rows = overlay_->of(table);
    if (const auto it = rows.find(key); it != rows.end()) {
      return it->second ? std::optional<ByteSpan>(*it->second) : std::nullopt;
    }
  }
  MDB_val k = as_val(key), v{};
  const int rc = mdb_get(txn_, dbi(table), &k, &v);
  if (rc == MDB_NOTFOUND) return std::nullopt;
  if (rc) return failed(rc, on_table("read", table));
  return as_span(v);
}

Status Txn::put(Table table, ByteSpan key, ByteSpan value) {
  touch(table, key);
  MDB_val k = as_val(key), v = as_val(value);
  if (int rc = mdb_put(txn_, dbi(table), &k, &v, 0)) return failed(rc, on_table("write", table));
  return {};
}

Result<MutableByteSpan> Txn::reserve(Table table, ByteSpan key, std::size_t n) {
  touch(table, key);
  MDB_val k = as_val(key), v{n, nullptr};
  if (int rc = mdb_put(txn_, dbi(table), &k, &v, MDB_RESERVE)) {
    return failed(rc, on_table("write", table));
  }
  return MutableByteSpan(static_cast<std::uint8_t*>(v.mv_data), v.mv_size);
}

Result<bool> Txn::erase(Table table, ByteSpan key) {
  touch(table, key);
  MDB_val k = as_val(key);
  const int rc = mdb_del(txn_, dbi(table), &k, nullptr);
  if (rc == MDB_NOTFOUND) return false;
  if (rc) return failed(rc, on_table("erase from", table));
  return true;
}

void Txn::touch(Table table, ByteSpan key) {
  if (touched_ != nullptr) touched_->emplace_back(table, Bytes(key.begin(), key.end()));
}

Status Txn::read(const TouchedKeys& keys, Overlay& into) const {
  into.base = mdb_txn_id(txn_) - 1;
  for (const auto& [table, key] : keys) {
    KVFS_ASSIGN(const auto value, get(table, key));
    Overlay::Row& row = into.of(table)[key];
    row.reset();
    if (value) row.emplace(value->begin(), value->end());
    into.bytes += key.size() + (value ? value->size() : 0);
  }
  return {};
}

Status Txn::apply(const Overlay& overlay) {
  for (int i = 0; i < kTables; ++i) {
    const auto table = static_cast<Table>(i);
    for (const auto& [key, row] : overlay.of(table)) {
      if (row) {
        KVFS_TRY(put(table, key, *row));
      } else {
        KVFS_TRY(erase(table, key));
      }
    }
  }
  return {};
}

// --- Cursor -------------------------------------------------------------------------------------

Result<Cursor> Cursor::open(const Txn& txn, Table table) {
  MDB_cursor* cursor = nullptr;
  if (int rc = mdb_cursor_open(txn.txn_, txn.dbi(table), &cursor)) {
    return failed(rc, on_table("read", table));
  }
  return Cursor(cursor, txn.overlay_ ? &txn.overlay_->of(table) : nullptr);
}

Cursor::Cursor(Cursor&& other) noexcept : Cursor(other) { other.cursor_ = nullptr; }

Cursor::~Cursor() {
  if (cursor_) mdb_cursor_close(cursor_);
}

Result<bool> Cursor::seek(ByteSpan key) {
  KVFS_TRY(move(key.empty() ? MDB_FIRST : MDB_SET_RANGE, key));
  if (rows_ != nullptr) row_ = rows_->lower_bound(key);
  return settle();
}

Result<bool> Cursor::next() {
  if (on_lmdb_) KVFS_TRY(move(MDB_NEXT, {}));
  if (on_row_) ++row_;
  return settle();
}

// To the first of the two present rows, the overlay's where both have the key.
Result<bool> Cursor::settle() {
  for (;;) {
    const bool more = rows_ != nullptr && row_ != rows_->end();
    on_row_ = on_lmdb_ = false;
    if (!more && !there_) return false;
    const auto order = !more     ? std::strong_ordering::greater
                       : !there_ ? std::strong_ordering::less
                                 : compare(row_->first, lmdb_key_);
    on_row_ = order <= 0;
    on_lmdb_ = order >= 0;
    if (!on_row_) {
      key_ = lmdb_key_;
      value_ = lmdb_value_;
      return true;
    }
    if (row_->second) {
      key_ = row_->first;
      value_ = *row_->second;
      return true;
    }
    if (on_lmdb_) KVFS_TRY(move(MDB_NEXT, {}));
    ++row_;
  }
}

Status Cursor::move(int operation, ByteSpan key) {
  MDB_val k = as_val(key), v{};
  const int rc = mdb_cursor_get(cursor_, &k, &v, static_cast<MDB_cursor_op>(operation));
  there_ = rc == 0;
  if (rc != 0 && rc != MDB_NOTFOUND) return failed(rc, "walk a table of the store");
  lmdb_key_ = there_ ? as_span(k) : ByteSpan();
  lmdb_value_ = there_ ? as_span(v) : ByteSpan();
  return {};
}

// --- Environment --------------------------------------------------------------------------------

Result<std::unique_ptr<Environment>> Environment::open(const std::filesystem::path& directory,
                                                       std::uint64_t map_bytes) {
  const std::string what = "open the store " + directory.string();
  for (;;) {
    MDB_env* env = nullptr;
    if (int rc = mdb_env_create(&env)) return failed(rc, what);
    std::unique_ptr<Environment> out(new Environment(env));
    int rc = mdb_env_set_mapsize(env, map_bytes);
    if (!rc) rc = mdb_env_set_maxdbs(env, kTables);
    if (!rc) rc = mdb_env_set_maxreaders(env, kReaders);
    if (!rc) rc = mdb_env_open(env, directory.c_str(), MDB_NOTLS, 0600);
    if (rc == ENOMEM && map_bytes / 2 >= kSmallestMap) {  // ulimit -v, or a small address space
      map_bytes /= 2;
      continue;
    }
    if (rc) return failed(rc, what);
    int dead = 0;
    if ((rc = mdb_reader_check(env, &dead))) return failed(rc, what);
    KVFS_TRY(out->open_tables());
    return out;
  }
}

Environment::~Environment() { mdb_env_close(env_); }

Status Environment::open_tables() {
  KVFS_ASSIGN(Txn txn, begin_write());
  for (int i = 0; i < kTables; ++i) {
    if (int rc = mdb_dbi_open(txn.txn_, kTableNames[i], MDB_CREATE, &tables_[i])) {
      return failed(rc, on_table("open", static_cast<Table>(i)));
    }
  }
  return txn.commit();
}

Result<Txn> Environment::begin_read() {
  std::shared_ptr<const Overlay> overlay;
  {
    const std::lock_guard lock(mutex_);
    overlay = overlay_;
  }
  MDB_txn* txn = nullptr;
  if (int rc = mdb_txn_begin(env_, nullptr, MDB_RDONLY, &txn)) return failed(rc, "read the store");
  Txn out(env_, txn, tables_);
  // Committed meanwhile: it is in the map, and what came after it, too.
  if (overlay && mdb_txn_id(txn) == overlay->base) out.overlay_ = std::move(overlay);
  return out;
}

void Environment::show(std::shared_ptr<const Overlay> overlay) {
  const std::lock_guard lock(mutex_);
  overlay_ = std::move(overlay);
}

Result<Txn> Environment::begin_write() {
  MDB_txn* txn = nullptr;
  if (int rc = mdb_txn_begin(env_, nullptr, 0, &txn)) return failed(rc, "write to the store");
  return Txn(env_, txn, tables_);
}

}  // namespace kvfs::store

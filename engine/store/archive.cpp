// The table of an archive and its bytes.
#include "engine/store/archive.h"

#include <algorithm>

#include "engine/store/archive_front.h"
#include "engine/store/digests.h"
#include "engine/store/layout_parts.h"
#include "engine/store/layouts.h"

namespace kvfs::store {
namespace {

constexpr std::uint8_t kTableLayout = 1;
constexpr char kTable[] = "the table of the archive";
constexpr std::size_t kItemBytes = 20;

void put_items(ByteWriter& out, const std::vector<ArchiveTable::Item>& items) {
  out.number(static_cast<std::uint32_t>(items.size()));
  for (const ArchiveTable::Item& item : items) {
    out.raw(item.id);
    out.number(item.size);
  }
}

std::vector<ArchiveTable::Item> take_items(ByteReader& in) {
  std::vector<ArchiveTable::Item> items(take_count(in, kItemBytes));
  for (ArchiveTable::Item& item : items) {
    const ByteSpan id = in.raw(item.id.size());
    if (!id.empty()) std::ranges::copy(id, item.id.begin());
    item.size = in.number<std::uint32_t>();
  }
  return items;
}

template <class Record>
void put_records(ByteWriter& out, const std::vector<Record>& records) {
  out.number(static_cast<std::uint32_t>(records.size()));
  for (const Record& record : records) out.text(as_text(encode(record)));
}

template <class Record>
Status take_records(ByteReader& in, std::vector<Record>& out, const char* name,
                    Result<Record> (*decode)(ByteSpan, const std::string&)) {
  const std::size_t count = take_count(in, sizeof(std::uint32_t));
  for (std::size_t i = 0; i < count && in.ok(); ++i) {
    const ByteSpan bytes = in.raw(in.number<std::uint32_t>());
    KVFS_ASSIGN(Record record, decode(bytes, name + std::to_string(i) + " of the archive"));
    out.push_back(std::move(record));
  }
  return {};
}

void put_file(ByteWriter& out, const ArchiveTable::File& file) {
  out.text(file.name);
  out.number(static_cast<std::uint8_t>(file.kind));
  out.number(file.mode);
  out.number(file.size);
  out.number(file.modified_ns);
  out.text(file.target);
  out.number(static_cast<std::uint32_t>(file.pieces.size()));
  for (const auto& [number, piece] : file.pieces) {
    out.number(number);
    out.number(piece);
  }
}

ArchiveTable::File take_file(ByteReader& in, std::size_t pieces) {
  ArchiveTable::File file;
  file.name = in.text();
  file.kind = take_enum(in, FileKind::kSymlink);
  file.mode = in.number<std::uint32_t>();
  file.size = in.number<std::uint64_t>();
  file.modified_ns = in.number<std::int64_t>();
  file.target = in.text();
  file.pieces.resize(take_count(in, sizeof(std::uint64_t) + sizeof(std::uint32_t)));
  for (auto& [number, piece] : file.pieces) {
    number = in.number<std::uint64_t>();
    piece = in.number<std::uint32_t>();
    if (piece >= pieces || number >= (file.size + kPieceBytes - 1) / kPieceBytes) spoil(in);
  }
  if (file.size > std::uint64_t{1} << 62) spoil(in);
  const bool link = file.kind == FileKind::kSymlink;
  if (link == file.target.empty() || (link && !file.pieces.empty())) spoil(in);
  return file;
}

void put_state(ByteWriter& out, const ArchiveTable::State& state) {
  out.text(state.name);
  out.number(state.version ? *state.version + 1 : std::uint32_t{0});
  out.number(static_cast<std::uint32_t>(state.params.size()));
  for (const auto& [name, value] : state.params) {
    out.text(name);
    out.text(value);
  }
  out.number(static_cast<std::uint32_t>(state.files.size()));
  for (const ArchiveTable::File& file : state.files) put_file(out, file);
}

ArchiveTable::State take_state(ByteReader& in, const ArchiveTable& table) {
  ArchiveTable::State state;
  state.name = in.text();
  const auto version = in.number<std::uint32_t>();
  if (version > table.versions.size()) spoil(in);
  if (version != 0) state.version = version - 1;
  const std::size_t params = take_count(in, 8);
  for (std::size_t i = 0; i < params && in.ok(); ++i) {
    std::string name = in.text();
    state.params[std::move(name)] = in.text();
  }
  const std::size_t files = take_count(in, 1);
  for (std::size_t i = 0; i < files && in.ok(); ++i) {
    state.files.push_back(take_file(in, table.pieces.size()));
  }
  return state;
}

Result<ArchiveTable> decode_table(ByteSpan bytes) {
  ByteReader in(bytes);
  KVFS_TRY(check_layout(in, kTableLayout, kTable));
  ArchiveTable table;
  table.chunks = take_items(in);
  KVFS_TRY(take_records(in, table.blocks, "block ", &decode_block));
  KVFS_TRY(take_records(in, table.versions, "version ", &decode_version));
  for (const VersionRecord& version : table.versions) {
    for (const BlockId block : version.blocks) {
      if (block.value >= table.blocks.size()) spoil(in);
    }
  }
  table.pieces = take_items(in);
  const std::size_t states = take_count(in, 1);
  for (std::size_t i = 0; i < states && in.ok(); ++i) table.states.push_back(take_state(in, table));
  if (table.states.empty() || !table.states.front().name.empty()) spoil(in);
  return finish(in, std::move(table), kTable);
}

// The store's readers speak of the store: here it is a file that somebody sent.
tl::unexpected<Error> refuse(Error error) {
  if (error.code == ErrorCode::kCorrupt) {
    error.code = ErrorCode::kInvalid;
    error.way_out = "copy the archive again, or export the state anew";
  }
  return fail(std::move(error));
}

}  // namespace

Bytes encode(const ArchiveTable& table) {
  ByteWriter out;
  out.number(kTableLayout);
  put_items(out, table.chunks);
  put_records(out, table.blocks);
  put_records(out, table.versions);
  put_items(out, table.pieces);
  out.number(static_cast<std::uint32_t>(table.states.size()));
  for (const ArchiveTable::State& state : table.states) put_state(out, state);
  return out.take();
}

Bytes archive_front(ByteSpan table) {
  ByteWriter out;
  out.raw(as_bytes(kArchiveMagic));
  out.number(kArchiveFormat);
  out.number(std::uint32_t{0});
  out.number(static_cast<std::uint64_t>(table.size()));
  out.raw(hash128(table));
  return out.take();
}

bool Archive::is_archive(ByteSpan file) { return as_text(file).starts_with(kArchiveMagic); }

Result<Archive> Archive::read(ByteSpan file) {
  ByteReader in(file);
  in.raw(kArchiveMagic.size());
  const auto format = in.number<std::uint32_t>();
  in.number<std::uint32_t>();
  const auto table_bytes = in.number<std::uint64_t>();
  const ByteSpan digest = in.raw(16);
  if (in.ok() && format != kArchiveFormat) {
    return fail(ErrorCode::kUnsupported, "archive",
                "it has format " + std::to_string(format) + ", this daemon knows " +
                    std::to_string(kArchiveFormat),
                "use the newer kvfsd that wrote it");
  }
  const ByteSpan table = table_bytes <= in.left() ? in.raw(table_bytes) : ByteSpan();
  if (!in.ok() || table.empty()) {
    return fail(ErrorCode::kInvalid, "archive", "it is cut short", "copy it again");
  }
  if (!std::ranges::equal(hash128(table), digest)) {
    return fail(ErrorCode::kInvalid, "archive", "its table is damaged", "copy it again");
  }
  Archive out;
  auto decoded = decode_table(table);
  if (!decoded) return refuse(std::move(decoded).error());
  out.table_ = *std::move(decoded);
  for (const ArchiveTable::Item& item : out.table_.chunks) {
    out.chunks_.emplace(ChunkId{item.id}, in.raw(item.size));
  }
  for (const ArchiveTable::Item& item : out.table_.pieces) {
    out.pieces_.push_back(in.raw(item.size));
  }
  if (!in.ok()) {
    return fail(ErrorCode::kInvalid, "archive",
                "it is cut short: it ends after " + std::to_string(file.size()) + " bytes",
                "copy it again");
  }
  if (!in.at_end()) {
    return fail(ErrorCode::kInvalid, "archive",
                std::to_string(in.left()) + " bytes follow what it lists", "copy it again");
  }
  return out;
}

}  // namespace kvfs::store

// Archives as views: the table is made at once, chunks and pieces are read as they are asked for.
#include <algorithm>
#include <array>
#include <iterator>
#include <map>
#include <unordered_set>
#include <utility>

#include "codec/container/piece_file.h"
#include "engine/store/archive.h"
#include "engine/store/archive_front.h"
#include "engine/store/digests.h"

namespace kvfs::store {
namespace {

class ArchiveView final : public FileView {
 public:
  explicit ArchiveView(Store& store) : store_(store) {}

  // Numbers in the table; what is there already is listed once.
  Result<std::uint32_t> add_version(const VersionRecord& version) {
    KVFS_ASSIGN(auto pins, pin_blocks(store_, version));
    std::ranges::move(pins, std::back_inserter(pins_));
    VersionRecord record = version;
    record.references = 0;
    for (BlockId& block : record.blocks) {
      KVFS_ASSIGN(const std::uint32_t number, add_block(block));
      block = BlockId{number};
    }
    table_.versions.push_back(std::move(record));
    return static_cast<std::uint32_t>(table_.versions.size() - 1);
  }

  Status add_state(StateId id, std::string name, bool files) {
    KVFS_ASSIGN(const StateRecord record, store_.state(id));
    ArchiveTable::State state{.name = std::move(name), .params = record.params};
    if (record.version) {
      const auto known = versions_.find(record.version);
      if (known == versions_.end()) {
        KVFS_ASSIGN(const VersionRecord version, store_.version(record.version));
        KVFS_ASSIGN(state.version, add_version(version));
        versions_.emplace(record.version, *state.version);
      } else {
        state.version = known->second;
      }
    }
    if (files) KVFS_TRY(add_files(id, state));
    table_.states.push_back(std::move(state));
    return {};
  }

  void add_alone(std::uint32_t version) { table_.states.push_back({.version = version}); }

  void lay_out() {
    Bytes table = encode(table_);
    file_.add(archive_front(table));
    file_.add(std::move(table));
    for (const auto* items : {&table_.chunks, &table_.pieces}) {
      const bool pieces = items == &table_.pieces;
      for (std::size_t i = 0; i < items->size(); ++i) {
        file_.add_range(pieces ? table_.chunks.size() + i : i, (*items)[i].size);
      }
    }
    table_.blocks.clear();  // written
    table_.versions.clear();
  }

  std::uint64_t size() const override { return file_.size(); }

  Result<std::size_t> read(std::uint64_t offset, MutableByteSpan out) override {
    return file_.read(offset, out,
                      [this](std::size_t item, std::uint64_t at, MutableByteSpan part) {
                        return read_item(item, at, part);
                      });
  }

 private:
  struct PieceSource {
    FileId file;
    std::uint64_t number = 0;
  };

  Result<std::uint32_t> add_block(BlockId id) {
    const auto [known, is_new] =
        blocks_.emplace(id, static_cast<std::uint32_t>(table_.blocks.size()));
    if (!is_new) return known->second;
    KVFS_ASSIGN(BlockRecord block, store_.block(id));
    block.previous_key = block.key = {};
    for (const Segment& segment : block.segments) {
      for (const auto* ids : {&segment.key_chunks, &segment.value_chunks}) {
        for (const ChunkId& chunk : *ids) {
          if (!chunks_.insert(chunk).second) continue;
          KVFS_ASSIGN(const Bytes stored, store_.stored_chunk(chunk));
          table_.chunks.push_back({chunk.bytes, static_cast<std::uint32_t>(stored.size())});
        }
      }
    }
    table_.blocks.push_back(std::move(block));
    return known->second;
  }

  Status add_files(StateId id, ArchiveTable::State& state) {
    constexpr std::size_t kPage = 1024;
    std::string after;
    while (true) {
      KVFS_ASSIGN(const auto entries, store_.list(id, after, kPage));
      for (const NameEntry& entry : entries) {
        if (entry.kind == NameEntry::Kind::kState) continue;
        KVFS_ASSIGN(auto file, file_of(entry));
        state.files.push_back(std::move(file));
      }
      if (entries.size() < kPage) return {};
      after = entries.back().name;
    }
  }

  Result<ArchiveTable::File> file_of(const NameEntry& entry) {
    KVFS_ASSIGN(const FileNode node, store_.node(entry.file));
    ArchiveTable::File file{.name = entry.name,
                            .kind = node.kind,
                            .mode = node.mode,
                            .size = node.size,
                            .modified_ns = node.modified_ns,
                            .target = node.target};
    KVFS_ASSIGN(const auto view, node_view(store_, entry.file));
    for (std::uint64_t number = 0; number * kPieceBytes < node.size; ++number) {
      if (!node.source || number * kPieceBytes >= node.source_bytes) {  // what is missing is zeros
        KVFS_ASSIGN(const auto next, store_.next_piece(entry.file, number));
        if (!next || *next * kPieceBytes >= node.size) break;
        number = *next;
      }
      Bytes bytes(std::min<std::uint64_t>(kPieceBytes, node.size - number * kPieceBytes));
      KVFS_TRY(view->read(number * kPieceBytes, bytes));
      const auto id = hash128(bytes);
      const auto [known, is_new] =
          pieces_.emplace(id, static_cast<std::uint32_t>(table_.pieces.size()));
      if (is_new) {
        table_.pieces.push_back({id, static_cast<std::uint32_t>(bytes.size())});
        piece_sources_.push_back({entry.file, number});
      }
      file.pieces.emplace_back(number, known->second);
    }
    return file;
  }

  Status read_item(std::size_t item, std::uint64_t at, MutableByteSpan out) {
    const bool is_chunk = item < table_.chunks.size();
    const ArchiveTable::Item& facts =
        is_chunk ? table_.chunks[item] : table_.pieces[item - table_.chunks.size()];
    Bytes bytes;
    if (is_chunk) {
      KVFS_ASSIGN(bytes, store_.stored_chunk(ChunkId{facts.id}));
    } else {
      const PieceSource& source = piece_sources_[item - table_.chunks.size()];
      KVFS_ASSIGN(const auto view, node_view(store_, source.file));
      bytes.resize(facts.size);
      KVFS_ASSIGN(const std::size_t got, view->read(source.number * kPieceBytes, bytes));
      if (got != bytes.size() || hash128(bytes) != facts.id) bytes.clear();
    }
    if (bytes.size() != facts.size) {
      return fail(ErrorCode::kAgain, "reading an archive", "what it holds changed meanwhile",
                  "export it again");
    }
    std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), out.size(), out.begin());
    return {};
  }

  Store& store_;
  ArchiveTable table_;
  container::PieceFile file_;
  std::vector<BlockPin> pins_;
  std::vector<PieceSource> piece_sources_;  // as table_.pieces
  // While it is made.
  std::map<BlockId, std::uint32_t> blocks_;
  std::map<VersionId, std::uint32_t> versions_;
  std::unordered_set<ChunkId> chunks_;
  std::map<std::array<std::uint8_t, 16>, std::uint32_t> pieces_;
};

}  // namespace

Result<std::unique_ptr<FileView>> archive_view(Store& store, const VersionRecord& version) {
  auto view = std::make_unique<ArchiveView>(store);
  KVFS_ASSIGN(const std::uint32_t number, view->add_version(version));
  view->add_alone(number);
  view->lay_out();
  return view;
}

Result<std::unique_ptr<FileView>> archive_view(Store& store, StateId state,
                                               const ArchiveWishes& wishes) {
  auto view = std::make_unique<ArchiveView>(store);
  KVFS_TRY(view->add_state(state, {}, wishes.files));
  if (wishes.snapshots) {
    KVFS_ASSIGN(const auto snapshots, store.snapshots(state));
    for (const NameEntry& snapshot : snapshots) {
      KVFS_TRY(view->add_state(snapshot.state, snapshot.name, wishes.files));
    }
  }
  view->lay_out();
  return view;
}

}  // namespace kvfs::store

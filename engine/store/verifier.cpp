#include "engine/store/verifier.h"

#include <algorithm>
#include <map>
#include <string>

#include "engine/store/blocks.h"
#include "engine/store/digests.h"
#include "engine/store/file_nodes.h"
#include "engine/store/jobs.h"
#include "engine/store/keys.h"
#include "engine/store/layouts.h"
#include "engine/store/states.h"
#include "engine/store/versions.h"

namespace kvfs::store {
namespace {

constexpr std::size_t kChunksAtOnce = 256;  // a read transaction's

template <class Id>
std::string say(const char* kind, Id id) {
  return std::string(kind) + " " + std::to_string(id.value);
}

// The records, in one snapshot.
class RecordCheck {
 public:
  RecordCheck(const Txn& txn, VerifyReport& report) : txn_(txn), report_(report) {}

  Status run() {
    KVFS_TRY(check_chunk_headers());
    KVFS_TRY(check_blocks());
    KVFS_TRY(check_versions());
    KVFS_TRY(check_states());
    KVFS_TRY(check_names());
    KVFS_TRY(check_nodes());
    KVFS_TRY(check_pieces());
    KVFS_TRY(check_jobs());
    KVFS_TRY(check_references());
    return check_counters();
  }

 private:
  void problem(std::string sentence) { report_.problems.push_back(std::move(sentence)); }

  // visit(cursor) for every row; what it cannot parse is a problem, not the end.
  template <class Visit>
  Status each(Table table, Visit visit) {
    KVFS_ASSIGN(Cursor cursor, Cursor::open(txn_, table));
    KVFS_ASSIGN(bool found, cursor.seek({}));
    while (found) {
      if (const Status status = visit(cursor); !status) problem(status.error().message());
      KVFS_ASSIGN(found, cursor.next());
    }
    return {};
  }

  Status check_chunk_headers() {
    return each(Table::kChunks, [&](const Cursor& row) -> Status {
      KVFS_ASSIGN(const ChunkHeader header, decode_chunk_header(row.value(), "a chunk"));
      ++counted_.chunks;
      counted_.bytes_unique += header.shape.byte_size();
      counted_.bytes_stored += header.encoded_size;
      return {};
    });
  }

  Status check_blocks() {
    return each(Table::kBlocks, [&](const Cursor& row) -> Status {
      const auto id = id_from_key<BlockId>(row.key());
      ++counted_.blocks;
      blocks_[id];
      KVFS_ASSIGN(const BlockRecord block, decode_block(row.value(), say("block", id)));
      for (const Segment& segment : block.segments) {
        for (const auto* ids : {&segment.key_chunks, &segment.value_chunks}) {
          KVFS_TRY(check_chunks(
              id, *ids, ids == &segment.key_chunks ? segment.key_shape : segment.value_shape));
        }
      }
      KVFS_ASSIGN(const auto same, find_block(txn_, block));
      if (!same) problem(say("block", id) + ": its record does not match its hash");
      return {};
    });
  }

  Status check_chunks(BlockId block, const std::vector<ChunkId>& ids,
                      const chunk::ShapeClass& shape) {
    for (const ChunkId& id : ids) {
      KVFS_ASSIGN(const auto value, txn_.get(Table::kChunks, id.bytes));
      if (!value) {
        problem(say("block", block) + ": its chunk " + id.hex() + " is missing");
        continue;
      }
      KVFS_ASSIGN(const ChunkHeader header, decode_chunk_header(*value, "chunk " + id.hex()));
      if (header.shape != shape) {
        problem(say("block", block) + ": its chunk " + id.hex() + " has another shape");
      }
    }
    return {};
  }

  Status check_versions() {
    return each(Table::kVersions, [&](const Cursor& row) -> Status {
      const auto id = id_from_key<VersionId>(row.key());
      ++counted_.versions;
      KVFS_ASSIGN(const VersionRecord version, decode_version(row.value(), say("version", id)));
      versions_[id] = {.stored = version.references, .kv_bytes = version.kv_bytes};
      std::vector<ContentDigest> digests;
      for (BlockId block : version.blocks) {
        ++blocks_[block];
        KVFS_ASSIGN(const BlockSummary summary, read_summary(txn_, block));
        digests.push_back(summary.digest);
      }
      if (root_digest(version, digests) != version.root) {
        problem(say("version", id) + ": its root is not that of its blocks");
      }
      return {};
    });
  }

  void count_holder(VersionId id, const std::string& holder) {
    if (!id) return;
    const auto it = versions_.find(id);
    if (it == versions_.end()) {
      problem(holder + ": its " + say("version", id) + " is missing");
    } else {
      ++it->second.holders;
    }
  }

  Status check_states() {
    return each(Table::kStates, [&](const Cursor& row) -> Status {
      const auto id = id_from_key<StateId>(row.key());
      ++counted_.states;
      KVFS_ASSIGN(const StateRecord state, decode_state(row.value(), say("state", id)));
      count_holder(state.version, say("state", id));
      if (state.version) counted_.bytes_logical += versions_[state.version].kv_bytes;
      if (named(state) != id) problem(say("state", id) + ": its name does not lead to it");
      return {};
    });
  }

  StateId named(const StateRecord& state) const {
    if (state.snapshot) return read_snapshot(txn_, state.parent, state.name).value_or(StateId{});
    return read_name(txn_, state.parent, state.name).value_or(NameEntry{}).state;
  }

  Status check_names() {
    for (const Table table : {Table::kNames, Table::kSnapshots, Table::kStaged}) {
      KVFS_TRY(each(table, [&](const Cursor& row) -> Status {
        const std::string name(as_text(row.key().subspan(sizeof(std::uint64_t))));
        KVFS_ASSIGN(const NameEntry entry, parse_entry(name, row.value()));
        if (entry.kind != NameEntry::Kind::kState) {
          ++names_of_[entry.file];
        } else if (!read_state(txn_, entry.state)) {
          problem("name " + name + ": its " + say("state", entry.state) + " is missing");
        }
        return {};
      }));
    }
    return {};
  }

  Status check_nodes() {
    KVFS_TRY(each(Table::kNodes, [&](const Cursor& row) -> Status {
      const auto id = id_from_key<FileId>(row.key());
      KVFS_ASSIGN(const FileNode node, decode_node(row.value(), say("file", id)));
      count_holder(node.source, say("file", id));
      const auto names = names_of_.extract(id);
      if ((names ? names.mapped() : 0) != (node.linked ? 1 : 0)) {
        problem(say("file", id) + ": " + std::to_string(names ? names.mapped() : 0) +
                " names lead to it");
      }
      pieces_of_[id] = node.pieces;
      return {};
    }));
    for (const auto& [id, count] : names_of_)
      problem(say("file", id) + " has a name and is missing");
    return {};
  }

  Status check_pieces() {
    std::map<PieceId, std::uint32_t> named;
    KVFS_TRY(each(Table::kExtents, [&](const Cursor& row) -> Status {
      const auto id = id_from_key<FileId>(row.key());
      ByteReader in(row.value());
      ++named[in.digest<PieceId>()];
      const auto counted = pieces_of_.find(id);
      if (counted == pieces_of_.end() || counted->second-- == 0) {
        problem(say("file", id) + ": it has more pieces than it counts");
      }
      return {};
    }));
    KVFS_TRY(each(Table::kPieces, [&](const Cursor& row) -> Status {
      ByteReader in(row.key());
      const auto id = in.digest<PieceId>();
      KVFS_ASSIGN(const auto value, txn_.get(Table::kPieceReferences, id.bytes));
      ByteReader count(value.value_or(ByteSpan{}));
      const auto references = named.extract(id);
      if (count.number<std::uint32_t>() != (references ? references.mapped() : 0)) {
        problem("piece " + id.hex() + ": files name it another number of times than it counts");
      }
      if (!is_piece(id, row.value())) problem("piece " + id.hex() + ": it has another hash");
      return {};
    }));
    for (const auto& [id, count] : named) problem("piece " + id.hex() + " is missing");
    return {};
  }

  Status check_jobs() {
    return each(Table::kJobs, [&](const Cursor& row) -> Status {
      const auto id = id_from_key<JobId>(row.key());
      KVFS_ASSIGN(const JobRecord job, decode_job(row.value(), say("job", id)));
      count_holder(job.base, say("job", id));
      return {};
    });
  }

  Status check_references() {
    for (const auto& [id, listed] : blocks_) {
      const auto references = read_references(txn_, id);
      if (!references) {
        problem(references.error().message());
      } else if (*references != listed) {
        problem(say("block", id) + ": it counts " + std::to_string(*references) +
                " references, versions list it " + std::to_string(listed) + " times");
      }
    }
    for (const auto& [id, version] : versions_) {
      if (version.stored < version.holders) {
        problem(say("version", id) + ": it counts " + std::to_string(version.stored) +
                " references and is held " + std::to_string(version.holders) + " times");
      }
    }
    return {};
  }

  Status check_counters() {
    KVFS_ASSIGN(const Counters counters, load_counters(txn_));
    if (counters.statistics != counted_) {
      problem("the counters: they differ from what is in the tables");
    }
    report_.blocks = counted_.blocks;
    report_.versions = counted_.versions;
    report_.states = counted_.states;
    return {};
  }

  struct VersionCount {
    std::uint32_t stored = 0;
    std::uint32_t holders = 0;
    std::uint64_t kv_bytes = 0;
  };
  const Txn& txn_;
  VerifyReport& report_;
  StoreStatistics counted_;
  std::map<BlockId, std::uint32_t> blocks_;  // times that versions list it
  std::map<VersionId, VersionCount> versions_;
  std::map<FileId, std::uint32_t> names_of_;
  std::map<FileId, std::uint64_t> pieces_of_;  // not seen yet
};

}  // namespace

Result<VerifyReport> verify(Environment& environment, const ChunkTable& chunks) {
  VerifyReport report;
  {
    KVFS_ASSIGN(const Txn txn, environment.begin_read());
    KVFS_TRY(RecordCheck(txn, report).run());
  }
  Bytes from;
  for (bool more = true; more;) {
    KVFS_ASSIGN(const Txn txn, environment.begin_read());
    KVFS_ASSIGN(Cursor cursor, Cursor::open(txn, Table::kChunks));
    KVFS_ASSIGN(more, cursor.seek(from));
    for (std::size_t i = 0; more && i < kChunksAtOnce; ++i) {
      ChunkId id;
      std::copy_n(cursor.key().begin(), std::min(cursor.key().size(), id.bytes.size()),
                  id.bytes.begin());
      ++report.chunks;
      if (const Status status = chunks.check(id, cursor.value()); !status) {
        report.problems.push_back(status.error().message());
      }
      KVFS_ASSIGN(more, cursor.next());
    }
    if (more) from.assign(cursor.key().begin(), cursor.key().end());
  }
  return report;
}

}  // namespace kvfs::store

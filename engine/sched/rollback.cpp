#include "engine/sched/rollback.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "engine/sched/pruning.h"
#include "engine/store/assembly.h"
#include "engine/store/write_transaction.h"

namespace kvfs::sched {
namespace {

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

tl::unexpected<Error> refused(ErrorCode code, std::uint64_t n_tokens, std::string why,
                              std::string way_out) {
  return fail(code, "rollback " + std::to_string(n_tokens), std::move(why), std::move(way_out));
}

Result<store::StateRecord> changeable(store::Store& store, Scheduler& scheduler, StateId id) {
  KVFS_ASSIGN(store::StateRecord state, store.state(id));
  if (state.snapshot) {
    return fail(ErrorCode::kPermission, "rollback of snapshot " + state.name,
                "a snapshot stays what it is", "fork it");
  }
  if (scheduler.busy(id)) {
    return fail(ErrorCode::kBusy, "rollback of " + state.name, "jobs are changing the state",
                "wait for them or cancel them");
  }
  return state;
}

// Makes `version` the state's instead of the one it had when it was looked at.
Status replace(store::Store& store, Scheduler& scheduler, StateId id,
               const store::StateRecord& seen,
               const std::function<Result<VersionId>(store::WriteTransaction&)>& version) {
  const Status written = store.write([&](store::WriteTransaction& tx) -> Status {
    KVFS_ASSIGN(store::StateRecord now, tx.state(id));
    if (now.version != seen.version) {
      return fail(ErrorCode::kBusy, "rollback of " + now.name, "it advanced meanwhile",
                  "try again");
    }
    KVFS_ASSIGN(const VersionId next, version(tx));
    KVFS_TRY(tx.set_version(id, next));
    now.advanced_ns = now_ns();
    return tx.update_state(id, now);
  });
  KVFS_TRY(written);
  scheduler.advanced(id);
  return {};
}

// Rows of the piece before position `end`, of every head.
void cut_rows(Bytes& rows, std::size_t heads, std::size_t positions, std::size_t kept) {
  if (rows.empty()) return;
  const std::size_t head_bytes = rows.size() / heads, row_bytes = head_bytes / positions;
  Bytes out;
  out.reserve(heads * kept * row_bytes);
  for (std::size_t head = 0; head < heads; ++head) {
    const auto first = rows.begin() + static_cast<std::ptrdiff_t>(head * head_bytes);
    out.insert(out.end(), first, first + static_cast<std::ptrdiff_t>(kept * row_bytes));
  }
  rows = std::move(out);
}

void cut_piece(KvPiece& piece, Position end) {
  const std::size_t positions = piece.positions.size();
  const auto first_gone = std::ranges::lower_bound(piece.positions, end);
  const auto kept = static_cast<std::size_t>(first_gone - piece.positions.begin());
  cut_rows(piece.key, piece.head_count, positions, kept);
  cut_rows(piece.value, piece.head_count, positions, kept);
  piece.positions.resize(kept);
}

// The key of the block's first tokens, where its own can be worked out again from what the version
// and the state say: which of the few ways it was made decides which way the cut one's is.
BlockKey cut_key(const store::VersionRecord& version, const store::StateRecord& state,
                 const store::BlockRecord& block, const std::vector<store::BlockToken>& tokens) {
  if (!block.key) return {};
  for (const auto owner : {std::optional(state.uid), std::optional<std::uint32_t>()}) {
    const BlockKey first = store::first_key({.fingerprint = version.fingerprint,
                                             .kernel_class = version.kernel_class,
                                             .kv_dtype = version.kv_dtype,
                                             .owner = owner});
    const BlockKey previous = block.previous_key ? block.previous_key : first;
    for (const bool one_path : {false, true}) {
      if (store::next_key(previous, block.tokens, one_path) == block.key) {
        return store::next_key(previous, tokens, one_path);
      }
    }
  }
  return {};
}

// version: of the blocks before it.
Result<std::string> first_text(store::Store& store, Catalog& catalog,
                               const store::VersionRecord& version, const store::BlockRecord& block,
                               std::size_t tokens) {
  const auto card = catalog.card(version.model);
  if (!card || (*card)->info.fingerprint != version.fingerprint) {
    return fail(ErrorCode::kUnsupported, "rollback", "model " + version.model + " is not there",
                "start the daemon with it, or roll back to a snapshot");
  }
  const auto unknown = [](const store::BlockToken& token) { return token.token < 0; };
  if (std::ranges::any_of(block.tokens, unknown)) {
    KVFS_ASSIGN(const auto history, store::tokens_of(store, version));
    std::vector<TokenId> ids;
    for (const store::BlockToken& token : history) ids.push_back(token.token);
    for (const store::BlockToken& token : block.tokens) ids.push_back(token.token);
    return store::spelled(ids, history.size(), tokens,
                          [&](TokenId token) { return (*card)->tokenizer->bytes_of(token); });
  }
  std::size_t bytes = 0, all = 0;
  for (std::size_t i = 0; i < block.tokens.size(); ++i) {
    if (i == tokens) bytes = all;
    all += (*card)->tokenizer->bytes_of(block.tokens[i].token).size();
  }
  return all == block.text.size() ? block.text.substr(0, bytes) : std::string();
}

// The first `tokens` of the block, more than none and less than all, as a block of its own.
Result<store::NewBlock> cut_block(store::Store& store, Catalog& catalog,
                                  const store::VersionRecord& version,
                                  const store::StateRecord& state, BlockId id, std::size_t tokens) {
  KVFS_ASSIGN(const store::BlockRecord block, store.block(id));
  store::NewBlock made{.index = block.index};
  made.tokens.assign(block.tokens.begin(),
                     block.tokens.begin() + static_cast<std::ptrdiff_t>(tokens));
  KVFS_ASSIGN(made.text, first_text(store, catalog, version, block, tokens));
  const Position end = made.tokens.back().position + 1;
  for (const store::Segment& segment : block.segments) {
    KVFS_ASSIGN(KvPiece piece, store.read_segment(segment));
    cut_piece(piece, end);
    made.pieces.push_back(std::move(piece));
  }
  made.previous_key = block.previous_key;
  made.key = cut_key(version, state, block, made.tokens);
  return made;
}

// Of a pruned state the first tokens may be just what was dropped.
Status require_entries(store::WriteTransaction& tx, VersionId id, std::uint64_t n_tokens) {
  KVFS_ASSIGN(const store::VersionRecord version, tx.version(id));
  for (const store::LayerExtent& extent : version.extents) {
    if (std::ranges::find(extent.lengths, 0U) == extent.lengths.end()) continue;
    return refused(ErrorCode::kUnsupported, n_tokens,
                   "the state was pruned, and some layer keeps nothing of its first " +
                       std::to_string(n_tokens) + " tokens",
                   "keep more of them, or roll back to a snapshot");
  }
  return {};
}

}  // namespace

Status rollback(store::Store& store, Scheduler& scheduler, Catalog& catalog, StateId id,
                std::uint64_t n_tokens) {
  KVFS_ASSIGN(const store::StateRecord state, changeable(store, scheduler, id));
  store::VersionRecord version;
  if (state.version) {
    KVFS_ASSIGN(version, store.version(state.version));
  }
  if (n_tokens > version.n_tokens) {
    return refused(ErrorCode::kInvalid, n_tokens,
                   "the state has " + std::to_string(version.n_tokens) + " tokens",
                   "give at most that many");
  }
  if (n_tokens == version.n_tokens) return {};
  if (const std::uint64_t moved = moved_tokens(version); n_tokens > 0 && n_tokens < moved) {
    return refused(ErrorCode::kUnsupported, n_tokens,
                   "positions=compact moved what was left of its first " + std::to_string(moved) +
                       " tokens, and which entry is whose is not known any more",
                   "keep at least those, or roll back to a snapshot");
  }
  if (n_tokens == 0) {
    return replace(store, scheduler, id, state,
                   [](store::WriteTransaction&) -> Result<VersionId> { return VersionId{}; });
  }
  KVFS_ASSIGN(const auto summaries, store.summaries(version.blocks));
  std::size_t whole = 0;
  std::uint64_t before = 0;
  while (before + summaries[whole].token_count <= n_tokens)
    before += summaries[whole++].token_count;
  store::BlockPin pin;
  const BlockId border = version.blocks[n_tokens == before ? whole - 1 : whole];
  version.blocks.resize(whole);
  if (n_tokens > before) {
    const bool cuttable = std::ranges::all_of(
        version.layers, [](const LayerShape& layer) { return layer.kept == kBlockTokens; });
    if (!cuttable) {
      return refused(ErrorCode::kUnsupported, n_tokens,
                     "the model keeps the end of each block of 256 positions only",
                     "roll back to " + std::to_string(before) + ", or to a snapshot");
    }
    KVFS_ASSIGN(const auto block,
                cut_block(store, catalog, version, state, border, n_tokens - before));
    version.next_pos = block.tokens.back().position + 1;
    KVFS_ASSIGN(pin, store.add_block(block, version.kv_dtype, version.codec));
    version.blocks.push_back(pin.id());
  } else {
    KVFS_ASSIGN(const store::BlockRecord last, store.block(border));
    version.next_pos = last.tokens.back().position + 1;
  }
  return replace(store, scheduler, id, state,
                 [&](store::WriteTransaction& tx) -> Result<VersionId> {
                   KVFS_ASSIGN(const VersionId made, tx.add_version(version));
                   KVFS_TRY(require_entries(tx, made, n_tokens));
                   return made;
                 });
}

Status rollback_to(store::Store& store, Scheduler& scheduler, StateId id,
                   std::string_view snapshot) {
  KVFS_ASSIGN(const store::StateRecord state, changeable(store, scheduler, id));
  KVFS_ASSIGN(const StateId older, store.snapshot(id, snapshot));
  return replace(store, scheduler, id, state,
                 [&](store::WriteTransaction& tx) -> Result<VersionId> {
                   KVFS_ASSIGN(const store::StateRecord record, tx.state(older));
                   return record.version;
                 });
}

Status rollback_word(store::Store& store, Scheduler& scheduler, Catalog& catalog, StateId state,
                     std::string_view target) {
  if (target.starts_with('@')) return rollback_to(store, scheduler, state, target.substr(1));
  std::uint64_t n_tokens = 0;
  const char* end = target.data() + target.size();
  const auto parsed = std::from_chars(target.data(), end, n_tokens);
  if (target.empty() || parsed.ec != std::errc{} || parsed.ptr != end) {
    return fail(ErrorCode::kInvalid, "rollback " + std::string(target.substr(0, 80)),
                "it wants a number of tokens or @SNAPSHOT", "such as 512 or @before");
  }
  return rollback(store, scheduler, catalog, state, n_tokens);
}

}  // namespace kvfs::sched

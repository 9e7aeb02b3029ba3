// Archives, back into a store: blocks are decoded, checked and stored as if they were new.
#include <algorithm>
#include <future>
#include <utility>

#include "engine/store/archive.h"
#include "engine/store/assembly.h"
#include "engine/store/digests.h"
#include "engine/store/file_nodes.h"
#include "engine/store/layouts.h"

namespace kvfs::store {
namespace {

constexpr std::size_t kAtOnce = 4;  // blocks on their way to the store
// No codec makes more of its bytes: a header that says so lies, and would take memory.
constexpr std::size_t kMostDecodedPerByte = 16, kMostDecodedBeside = 4096;
constexpr std::uint64_t kMostJson = std::uint64_t{16} << 20;
constexpr char kWayOut[] = "copy the archive again, or export the state anew";

tl::unexpected<Error> damaged(std::string what, std::string why) {
  return fail(ErrorCode::kInvalid, "archive, " + std::move(what), std::move(why), kWayOut);
}

// That its words are words: what state.json says of it can be read back.
Status check_version(Store& store, const VersionRecord& version, std::size_t number) {
  const std::string what = "version " + std::to_string(number);
  if (version.n_tokens != static_cast<std::uint64_t>(version.next_pos) || version.n_tokens == 0) {
    return damaged(what, "its tokens and its next position do not agree");
  }
  const auto view = state_json_view(store, version);
  if (!view) return damaged(what, view.error().message());
  const auto text = read_whole(**view, kMostJson, "state.json");
  if (!text) return damaged(what, text.error().message());
  const auto document = parse_state_json(*text);
  if (!document) return damaged(what, document.error().message());
  return {};
}

bool fits(const VersionRecord& version, const Segment& segment) {
  if (segment.layer >= version.layers.size()) return false;
  const LayerShape& layer = version.layers[segment.layer];
  const auto shape_fits = [&](const chunk::ShapeClass& shape, std::uint16_t width) {
    return shape.width == width && (width == 0 || shape.dtype == version.kv_dtype);
  };
  return segment.head_begin + segment.head_count <= layer.kv_heads && segment.kind == layer.kind &&
         shape_fits(segment.key_shape, layer.key_width) &&
         shape_fits(segment.value_shape, layer.value_width);
}

}  // namespace

Result<FilePiece> Archive::piece(const std::pair<std::uint64_t, std::uint32_t>& which) const {
  const ByteSpan bytes = pieces_[which.second];
  if (bytes.size() > kPieceBytes || hash128(bytes) != table_.pieces[which.second].id) {
    return damaged("a piece of a file", "its bytes are others than were exported");
  }
  return FilePiece{which.first, Bytes(bytes.begin(), bytes.end())};
}

Status Archive::add_chunks(const std::vector<ChunkId>& ids, const chunk::ShapeClass& shape,
                           Bytes& out, std::vector<KnownEncoding>& encodings) const {
  for (const ChunkId& id : ids) {
    const std::string what = "chunk " + id.hex();
    const auto found = chunks_.find(id);
    if (found == chunks_.end()) return damaged(what, "a block names it, and it is not there");
    const auto header = decode_chunk_header(found->second, what);
    if (!header) return damaged(what, "its header does not parse");
    const ByteSpan payload = found->second.subspan(kChunkHeaderBytes);
    const std::size_t size = shape.byte_size();
    if (header->shape != shape || hash64(payload) != header->checksum ||
        size > payload.size() * kMostDecodedPerByte + kMostDecodedBeside) {
      return damaged(what, "its bytes are others than were exported");
    }
    out.resize(out.size() + size);
    const MutableByteSpan to = MutableByteSpan(out).last(size);
    if (const Status decoded = chunk::decode(header->codec, shape, payload, to); !decoded) {
      return damaged(what, decoded.error().message());
    }
    encodings.push_back({shape, header->codec, payload});
  }
  return {};
}

Status Archive::add_piece(const VersionRecord& version, const Segment& segment,
                          NewBlock& block) const {
  if (!fits(version, segment)) {
    return damaged("a block", "it holds a layer or a head that its version has not");
  }
  KvPiece piece{.layer = segment.layer,
                .head_begin = segment.head_begin,
                .head_count = segment.head_count,
                .positions = segment.positions,
                .kind = segment.kind};
  std::vector<KnownEncoding> encodings;
  KVFS_TRY(add_chunks(segment.key_chunks, segment.key_shape, piece.key, encodings));
  KVFS_TRY(add_chunks(segment.value_chunks, segment.value_shape, piece.value, encodings));
  block.pieces.push_back(std::move(piece));
  block.encodings.push_back(std::move(encodings));
  return {};
}

Result<NewBlock> Archive::new_block(const VersionRecord& version, const BlockRecord& block) const {
  NewBlock out{.index = block.index, .tokens = block.tokens, .text = block.text};
  for (const Segment& segment : block.segments) {
    KVFS_TRY(add_piece(version, segment, out));
  }
  return out;
}

Result<Archive::Stored> Archive::store_blocks(Store& store, const SpellerOf& speller_of,
                                              const std::function<bool()>& given_up) const {
  Stored out;
  std::vector<std::optional<BlockId>> stored(table_.blocks.size());
  using Storing = std::future<Result<BlockPin>>;
  std::vector<std::pair<std::size_t, Storing>> going;  // in order, at most kAtOnce
  const auto land = [&]() -> Status {
    KVFS_ASSIGN(BlockPin pin, going.front().second.get());
    stored[going.front().first] = pin.id();
    out.pins.push_back(std::move(pin));
    going.erase(going.begin());
    return {};
  };
  for (std::size_t i = 0; i < table_.versions.size(); ++i) {
    const VersionRecord& version = table_.versions[i];
    KVFS_TRY(check_version(store, version, i));
    const Speller bytes_of = speller_of(version);
    std::vector<TokenId> history;
    for (const BlockId number : version.blocks) {
      const BlockRecord& block = table_.blocks[number.value];
      const std::size_t first = history.size();
      std::ranges::transform(block.tokens, std::back_inserter(history), &BlockToken::token);
      if (stored[number.value]) continue;
      const bool on_its_way =
          std::ranges::any_of(going, [&](const auto& each) { return each.first == number.value; });
      if (on_its_way) continue;
      KVFS_TRY(check_given_up(given_up));
      KVFS_ASSIGN(NewBlock made, new_block(version, block));
      if (bytes_of) made.text = spelled(history, first, block.tokens.size(), bytes_of);
      going.emplace_back(number.value,
                         std::async(std::launch::async, [&store, &version, made = std::move(made)] {
                           return store.add_block(made, version.kv_dtype, version.codec);
                         }));
      if (going.size() == kAtOnce) KVFS_TRY(land());
    }
  }
  while (!going.empty()) KVFS_TRY(land());
  for (VersionRecord version : table_.versions) {
    for (BlockId& block : version.blocks) block = *stored[block.value];
    out.versions.push_back(std::move(version));
  }
  return out;
}

}  // namespace kvfs::store

// The layout of a block's record: its summary first, then tokens, text, segments.
#include <algorithm>

#include "engine/store/layout_parts.h"
#include "engine/store/layouts.h"

namespace kvfs::store {
namespace {

constexpr std::uint8_t kBlockLayout = 1;
constexpr std::uint32_t kNoLength = ~std::uint32_t{0};

// Positions: u8 0, then i32 each; or u8 1, then the first of a run.
void put_positions(ByteWriter& out, const std::vector<Position>& positions) {
  out.number(static_cast<std::uint32_t>(positions.size()));
  bool run = !positions.empty();
  for (std::size_t i = 1; i < positions.size(); ++i) run &= positions[i] == positions[i - 1] + 1;
  out.number(static_cast<std::uint8_t>(run));
  if (run) return out.number(positions.front());
  for (Position position : positions) out.number(position);
}

std::vector<Position> take_positions(ByteReader& in) {
  const std::size_t count = in.number<std::uint32_t>();
  const bool run = in.number<std::uint8_t>() != 0;
  if (run ? count > kBlockTokens : count * sizeof(Position) > in.left()) spoil(in);
  if (!in.ok()) return {};
  std::vector<Position> positions(count);
  if (run) {
    const auto first = in.number<Position>();
    if (first < 0 || first > INT32_MAX - kBlockTokens) spoil(in);
    if (!in.ok()) return {};
    for (std::size_t i = 0; i < count; ++i) positions[i] = first + static_cast<Position>(i);
  } else {
    for (Position& position : positions) position = in.number<Position>();
  }
  return positions;
}

void put_tokens(ByteWriter& out, const std::vector<BlockToken>& tokens) {
  std::vector<Position> positions;
  for (const BlockToken& token : tokens) positions.push_back(token.position);
  put_positions(out, positions);
  for (const BlockToken& token : tokens) out.number(token.token);
  for (const BlockToken& token : tokens) out.number(static_cast<std::uint8_t>(token.path));
}

std::vector<BlockToken> take_tokens(ByteReader& in) {
  std::vector<BlockToken> tokens;
  for (Position position : take_positions(in)) tokens.push_back({.position = position});
  for (BlockToken& token : tokens) token.token = in.number<TokenId>();
  for (BlockToken& token : tokens) token.path = take_enum(in, TokenPath::kGenerated);
  return tokens;
}

void put_chunks(ByteWriter& out, const chunk::ShapeClass& shape, const std::vector<ChunkId>& ids) {
  put_shape(out, shape);
  out.number(static_cast<std::uint16_t>(ids.size()));
  for (const ChunkId& id : ids) out.digest(id);
}

std::vector<ChunkId> take_chunks(ByteReader& in, chunk::ShapeClass& shape) {
  shape = take_shape(in);
  const std::size_t count = in.number<std::uint16_t>();
  std::vector<ChunkId> ids;
  for (std::size_t i = 0; i < count && in.ok(); ++i) ids.push_back(in.digest<ChunkId>());
  return ids;
}

void put_segment(ByteWriter& out, const Segment& segment) {
  out.number(segment.layer);
  out.number(segment.head_begin);
  out.number(segment.head_count);
  out.number(static_cast<std::uint8_t>(segment.kind));
  put_positions(out, segment.positions);
  put_chunks(out, segment.key_shape, segment.key_chunks);
  put_chunks(out, segment.value_shape, segment.value_chunks);
  out.digest(segment.digest);
}

// The chunks' heads and positions are the segment's; what has no width has no chunks.
bool fits(const Segment& segment, const chunk::ShapeClass& shape, std::size_t chunks) {
  if (shape.positions != segment.positions.size()) return false;
  return shape.width == 0 ? chunks == 0 : shape.heads * chunks == segment.head_count;
}

Segment take_segment(ByteReader& in) {
  Segment segment;
  segment.layer = in.number<std::uint16_t>();
  segment.head_begin = in.number<std::uint16_t>();
  segment.head_count = in.number<std::uint16_t>();
  segment.kind = take_enum(in, LayerKind::kConvolution);
  segment.positions = take_positions(in);
  segment.key_chunks = take_chunks(in, segment.key_shape);
  segment.value_chunks = take_chunks(in, segment.value_shape);
  segment.digest = in.digest<ContentDigest>();
  if (!fits(segment, segment.key_shape, segment.key_chunks.size()) ||
      !fits(segment, segment.value_shape, segment.value_chunks.size())) {
    spoil(in);
  }
  return segment;
}

BlockSummary summarize(const BlockRecord& block) {
  BlockSummary summary{.index = block.index,
                       .token_count = static_cast<std::uint32_t>(block.tokens.size()),
                       .text_bytes = static_cast<std::uint32_t>(block.text.size()),
                       .kv_bytes = decoded_bytes(block),
                       .digest = block.digest};
  bool same = true;
  for (const Segment& segment : block.segments) {
    summary.heads += segment.head_count;
    same &= segment.positions == block.segments.front().positions;
  }
  if (same && !block.segments.empty()) {
    summary.length = static_cast<std::uint32_t>(block.segments.front().positions.size());
  }
  return summary;
}

void put_summary(ByteWriter& out, const BlockSummary& summary) {
  out.number(summary.index);
  out.number(summary.token_count);
  out.number(summary.text_bytes);
  out.number(summary.kv_bytes);
  out.digest(summary.digest);
  out.number(summary.heads);
  out.number(summary.length.value_or(kNoLength));
}

BlockSummary take_summary(ByteReader& in) {
  BlockSummary summary;
  summary.index = in.number<std::int32_t>();
  summary.token_count = in.number<std::uint32_t>();
  summary.text_bytes = in.number<std::uint32_t>();
  summary.kv_bytes = in.number<std::uint64_t>();
  summary.digest = in.digest<ContentDigest>();
  summary.heads = in.number<std::uint32_t>();
  if (const auto length = in.number<std::uint32_t>(); length != kNoLength) summary.length = length;
  return summary;
}

}  // namespace

std::uint64_t decoded_bytes(const BlockRecord& block) {
  std::uint64_t bytes = 0;
  for (const Segment& segment : block.segments) {
    bytes += segment.key_shape.byte_size() * segment.key_chunks.size() +
             segment.value_shape.byte_size() * segment.value_chunks.size();
  }
  return bytes;
}

Bytes encode(const BlockRecord& block) {
  ByteWriter out;
  out.number(kBlockLayout);
  put_summary(out, summarize(block));
  out.digest(block.previous_key);
  out.digest(block.key);
  put_tokens(out, block.tokens);
  out.text(block.text);
  out.number(static_cast<std::uint32_t>(block.segments.size()));
  for (const Segment& segment : block.segments) put_segment(out, segment);
  return out.take();
}

Result<BlockRecord> decode_block(ByteSpan bytes, const std::string& what) {
  ByteReader in(bytes);
  KVFS_TRY(check_layout(in, kBlockLayout, what));
  BlockRecord block;
  const BlockSummary summary = take_summary(in);
  block.index = summary.index;
  block.digest = summary.digest;
  block.previous_key = in.digest<BlockKey>();
  block.key = in.digest<BlockKey>();
  block.tokens = take_tokens(in);
  block.text = in.text();
  const std::size_t segments = take_count(in, 1);
  for (std::size_t i = 0; i < segments && in.ok(); ++i) {
    block.segments.push_back(take_segment(in));
  }
  if (summary.token_count != block.tokens.size() || summary.text_bytes != block.text.size()) {
    return damaged(what);
  }
  return finish(in, std::move(block), what);
}

Result<BlockSummary> decode_summary(ByteSpan bytes, const std::string& what) {
  ByteReader in(bytes);
  KVFS_TRY(check_layout(in, kBlockLayout, what));
  const BlockSummary summary = take_summary(in);
  if (!in.ok()) return damaged(what);
  return summary;
}

}  // namespace kvfs::store

// Digests of content (XXH3-128, canonical byte order). They depend on decoded content alone: not on
// codecs, chunk sizes, or how heads were grouped into segments.
//
//   head    over one head's key bytes, its value bytes, its positions (i32 each)
//   segment over its heads' digests, in order of heads
//   block   over index i32, count u32 and (token i32, position i32) of its tokens, then
//           (layer u16, head u16, head digest) in order of layer and head
//   root    over fingerprint, dtype u8, next_pos i32, count u16 and (heads, key width, value width:
//           u16 each) of the layers, then the blocks' digests
// The path of a token stays out: a copy that was carried through files does not know it.
#pragma once

#include <span>

#include "engine/store/records.h"

struct XXH3_state_s;

namespace kvfs::store {

class Hasher {
 public:
  explicit Hasher(std::uint64_t seed = 0);
  ~Hasher();
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;

  void raw(ByteSpan bytes);
  template <class T>
  requires std::integral<T>
  void number(T value) { raw({reinterpret_cast<const std::uint8_t*>(&value), sizeof value}); }
  void text(std::string_view value) {  // with its length, so that texts in a row stay apart
    number(static_cast<std::uint32_t>(value.size()));
    raw(as_bytes(value));
  }
  template <class Tag>
  void digest(const Digest128<Tag>& value) {
    raw(value.bytes);
  }
  template <class D>
  D finish() const {
    return D{result()};
  }

 private:
  std::array<std::uint8_t, 16> result() const;
  XXH3_state_s* state_;
};

std::array<std::uint8_t, 16> hash128(ByteSpan bytes, std::uint64_t seed = 0);
std::uint64_t hash64(ByteSpan bytes);

// One digest a head of the piece.
std::vector<ContentDigest> head_digests(const KvPiece& piece);
ContentDigest segment_digest(const std::vector<ContentDigest>& heads);

struct HeadDigest {
  std::uint16_t layer = 0;
  std::uint16_t head = 0;
  ContentDigest digest;
};
// heads: in any order; sorted here.
ContentDigest block_digest(std::int32_t index, const std::vector<BlockToken>& tokens,
                           std::vector<HeadDigest> heads);
// blocks: the digests of version.blocks.
ContentDigest root_digest(const VersionRecord& version, const std::vector<ContentDigest>& blocks);

}  // namespace kvfs::store

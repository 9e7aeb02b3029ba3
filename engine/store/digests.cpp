#include "engine/store/digests.h"

#include <xxhash.h>
#if defined(__x86_64__)
#include <xxh_x86dispatch.h>  // the same bits by the widest vectors this processor has
#endif

#include <algorithm>
#include <new>
#include <tuple>

namespace kvfs::store {
namespace {

std::array<std::uint8_t, 16> canonical(XXH128_hash_t hash) {
  XXH128_canonical_t bytes;
  XXH128_canonicalFromHash(&bytes, hash);
  std::array<std::uint8_t, 16> out;
  std::copy(std::begin(bytes.digest), std::end(bytes.digest), out.begin());
  return out;
}

}  // namespace

Hasher::Hasher(std::uint64_t seed) : state_(XXH3_createState()) {
  if (!state_) throw std::bad_alloc();
  XXH3_128bits_reset_withSeed(state_, seed);
}

Hasher::~Hasher() { XXH3_freeState(state_); }

void Hasher::raw(ByteSpan bytes) {
  if (!bytes.empty()) XXH3_128bits_update(state_, bytes.data(), bytes.size());
}

std::array<std::uint8_t, 16> Hasher::result() const {
  return canonical(XXH3_128bits_digest(state_));
}

std::array<std::uint8_t, 16> hash128(ByteSpan bytes, std::uint64_t seed) {
  return canonical(XXH3_128bits_withSeed(bytes.data(), bytes.size(), seed));
}

std::uint64_t hash64(ByteSpan bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

std::vector<ContentDigest> head_digests(const KvPiece& piece) {
  std::vector<ContentDigest> out;
  if (piece.head_count == 0) return out;
  const std::size_t key_size = piece.key.size() / piece.head_count;
  const std::size_t value_size = piece.value.size() / piece.head_count;
  for (std::size_t head = 0; head < piece.head_count; ++head) {
    Hasher hasher;
    hasher.raw(ByteSpan(piece.key).subspan(head * key_size, key_size));
    hasher.raw(ByteSpan(piece.value).subspan(head * value_size, value_size));
    for (Position position : piece.positions) hasher.number(position);
    out.push_back(hasher.finish<ContentDigest>());
  }
  return out;
}

ContentDigest segment_digest(const std::vector<ContentDigest>& heads) {
  Hasher hasher;
  for (const ContentDigest& head : heads) hasher.digest(head);
  return hasher.finish<ContentDigest>();
}

ContentDigest block_digest(std::int32_t index, const std::vector<BlockToken>& tokens,
                           std::vector<HeadDigest> heads) {
  std::sort(heads.begin(), heads.end(), [](const HeadDigest& a, const HeadDigest& b) {
    return std::tie(a.layer, a.head) < std::tie(b.layer, b.head);
  });
  Hasher hasher;
  hasher.number(index);
  hasher.number(static_cast<std::uint32_t>(tokens.size()));
  for (const BlockToken& token : tokens) {
    hasher.number(token.token);
    hasher.number(token.position);
  }
  for (const HeadDigest& head : heads) {
    hasher.number(head.layer);
    hasher.number(head.head);
    hasher.digest(head.digest);
  }
  return hasher.finish<ContentDigest>();
}

ContentDigest root_digest(const VersionRecord& version, const std::vector<ContentDigest>& blocks) {
  Hasher hasher;
  hasher.digest(version.fingerprint);
  hasher.number(static_cast<std::uint8_t>(version.kv_dtype));
  hasher.number(version.next_pos);
  hasher.number(static_cast<std::uint16_t>(version.layers.size()));
  for (const LayerShape& layer : version.layers) {
    hasher.number(layer.kv_heads);
    hasher.number(layer.key_width);
    hasher.number(layer.value_width);
  }
  for (const ContentDigest& block : blocks) hasher.digest(block);
  return hasher.finish<ContentDigest>();
}

}  // namespace kvfs::store

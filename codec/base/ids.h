// Strong types for ids: never a bare integer or string across an interface.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "codec/base/result.h"

namespace kvfs {

// A number of one kind; 0 means "none" for every kind.
template <class Tag>
struct NumberId {
  std::uint64_t value = 0;
  constexpr explicit operator bool() const { return value != 0; }
  constexpr auto operator<=>(const NumberId&) const = default;
};

using StateId = NumberId<struct StateTag>;      // a state; also its directory's inode, never reused
using VersionId = NumberId<struct VersionTag>;  // what a state knew at one commit, immutable
using BlockId = NumberId<struct BlockTag>;      // a block manifest
using FileId = NumberId<struct FileTag>;        // content kept beside a state (replies, prompts, notes)
using JobId = NumberId<struct JobTag>;          // grows with submission

// 128 bits of one kind, compared and stored as bytes.
template <class Tag>
struct Digest128 {
  std::array<std::uint8_t, 16> bytes{};
  constexpr explicit operator bool() const { return bytes != std::array<std::uint8_t, 16>{}; }
  constexpr auto operator<=>(const Digest128&) const = default;
  std::string hex() const;
};

using ChunkId = Digest128<struct ChunkTag>;           // XXH3-128 of decoded bytes and shape class
using BlockKey = Digest128<struct BlockKeyTag>;       // chained prefix key, see engine/store/block.h
using ContentDigest = Digest128<struct ContentTag>;   // XXH3-128 of decoded KV pieces, tokens, …
using ModelFingerprint = Digest128<struct ModelTag>;  // weights, config, tokenizer, RoPE variant

// 32 lower-case hex digits; kInvalid otherwise.
std::string to_hex(const std::array<std::uint8_t, 16>& bytes);
Result<std::array<std::uint8_t, 16>> from_hex(std::string_view text);

template <class Tag>
std::string Digest128<Tag>::hex() const {
  return to_hex(bytes);
}

using TokenId = std::int32_t;  // −1 where unknown, as tokens.npy has it
using Position = std::int32_t; // absolute position of a token in its history

inline constexpr int kBlockTokens = 256;  // positions of a block and of a page, on the absolute grid

}  // namespace kvfs

template <class Tag>
struct std::hash<kvfs::NumberId<Tag>> {
  std::size_t operator()(const kvfs::NumberId<Tag>& id) const noexcept {
    return std::hash<std::uint64_t>{}(id.value);
  }
};
template <class Tag>
struct std::hash<kvfs::Digest128<Tag>> {
  std::size_t operator()(const kvfs::Digest128<Tag>& id) const noexcept {
    std::size_t word = 0;
    for (std::size_t i = 0; i < sizeof word; ++i) word |= std::size_t{id.bytes[i]} << (8 * i);
    return word;
  }
};

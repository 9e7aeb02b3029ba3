#include "engine/text/bpe.h"

#include <algorithm>
#include <limits>
#include <queue>

namespace kvfs::text {
namespace {

constexpr std::size_t kShort = 48;  // symbols; most words are far below
// Symbols; longer pieces are cut, so that places fit 32 bits.
constexpr std::size_t kLongest = std::size_t{1} << 30;
constexpr std::uint32_t kNoRank = std::numeric_limits<std::uint32_t>::max();
constexpr std::uint32_t kNowhere = std::numeric_limits<std::uint32_t>::max();

std::uint64_t key_of(TokenId left, TokenId right) {
  return std::uint64_t{static_cast<std::uint32_t>(left)} << 32U | static_cast<std::uint32_t>(right);
}

struct Symbol {
  TokenId id;  // kNoToken: joined to the one before it
  std::uint32_t previous, next;
};

struct Candidate {
  std::uint32_t rank, left;
  bool operator>(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : left > other.left;
  }
};

}  // namespace

void Bpe::add_merge(TokenId left, TokenId right, std::uint32_t rank, TokenId joined) {
  merges_.try_emplace(key_of(left, right), Merge{rank, joined});
}

const Bpe::Merge* Bpe::find(TokenId left, TokenId right) const {
  const auto found = merges_.find(key_of(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void Bpe::encode(std::string_view piece, std::vector<TokenId>& out) const {
  std::array<TokenId, kShort> few{};
  std::vector<TokenId> many;
  for (; !piece.empty(); piece.remove_prefix(std::min(piece.size(), kLongest))) {
    const std::string_view part = piece.substr(0, kLongest);
    if (part.size() > kShort) many.resize(part.size());
    TokenId* const symbols = part.size() > kShort ? many.data() : few.data();
    std::size_t count = 0;
    for (const char byte : part) {
      const TokenId id = byte_tokens_[static_cast<std::uint8_t>(byte)];
      if (id != kNoToken) symbols[count++] = id;
    }
    merge({symbols, count}, out);
  }
}

void Bpe::merge(std::span<const TokenId> symbols, std::vector<TokenId>& out) const {
  for (; symbols.size() > kLongest; symbols = symbols.subspan(kLongest)) {
    merge_long(symbols.first(kLongest), out);
  }
  symbols.size() <= kShort ? merge_short(symbols, out) : merge_long(symbols, out);
}

void Bpe::merge_short(std::span<const TokenId> symbols, std::vector<TokenId>& out) const {
  std::array<TokenId, kShort> ids{};
  std::array<Merge, kShort> merges{};  // of a place and the next
  std::size_t count = symbols.size();
  std::copy(symbols.begin(), symbols.end(), ids.begin());
  const auto look_up = [&](std::size_t at) {
    const Merge* merge = at + 1 < count ? find(ids[at], ids[at + 1]) : nullptr;
    merges[at] = merge ? *merge : Merge{kNoRank, kNoToken};
  };
  for (std::size_t i = 0; i < count; ++i) look_up(i);
  while (count > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < count; ++i) {
      if (merges[i].rank < merges[best].rank) best = i;
    }
    if (merges[best].rank == kNoRank) break;
    ids[best] = merges[best].joined;
    for (std::size_t i = best + 1; i + 1 < count; ++i) {
      ids[i] = ids[i + 1];
      merges[i] = merges[i + 1];
    }
    --count;
    look_up(best);
    if (best > 0) look_up(best - 1);
  }
  out.insert(out.end(), ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(count));
}

void Bpe::merge_long(std::span<const TokenId> given, std::vector<TokenId>& out) const {
  std::vector<Symbol> symbols;
  symbols.reserve(given.size());
  for (const TokenId id : given) {
    const auto at = static_cast<std::uint32_t>(symbols.size());
    symbols.push_back({id, at == 0 ? kNowhere : at - 1, at + 1});
  }
  symbols.back().next = kNowhere;

  const auto merge_at = [&](std::uint32_t left) -> const Merge* {
    if (left == kNowhere || symbols[left].id == kNoToken) return nullptr;
    const std::uint32_t right = symbols[left].next;
    return right == kNowhere ? nullptr : find(symbols[left].id, symbols[right].id);
  };
  std::vector<Candidate> first;
  first.reserve(symbols.size());
  for (std::uint32_t i = 0; i < symbols.size(); ++i) {
    if (const Merge* merge = merge_at(i)) first.push_back({merge->rank, i});
  }
  std::priority_queue queue(std::greater<>{}, std::move(first));
  const auto offer = [&](std::uint32_t left) {
    if (const Merge* merge = merge_at(left)) queue.push({merge->rank, left});
  };
  while (!queue.empty()) {
    const Candidate candidate = queue.top();
    queue.pop();
    const std::uint32_t left = candidate.left;
    const Merge* merge = merge_at(left);
    if (!merge || merge->rank != candidate.rank) continue;  // overtaken by another join
    Symbol& joined = symbols[left];
    Symbol& gone = symbols[joined.next];
    joined.id = merge->joined;
    joined.next = gone.next;
    gone.id = kNoToken;
    if (joined.next != kNowhere) symbols[joined.next].previous = left;
    offer(joined.previous);
    offer(left);
  }
  for (const Symbol& symbol : symbols) {
    if (symbol.id != kNoToken) out.push_back(symbol.id);
  }
}

}  // namespace kvfs::text

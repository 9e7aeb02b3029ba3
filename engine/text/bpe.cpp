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

// Symbols; below this a heap of all pairs lies in the caches, above it pairs wait by rank.
constexpr std::size_t kMany = 4096;

// A symbol and the pair that it makes with the next one.
struct Symbol {
  TokenId id;
  std::uint32_t previous, next;
  std::uint32_t rank;  // of the pair; kNoRank: none, or the symbol is joined to the one before it
  TokenId joined;      // what the pair becomes
};

struct Candidate {
  std::uint32_t rank, left;
  bool operator>(const Candidate& other) const {
    return rank != other.rank ? rank > other.rank : left > other.left;
  }
};

// Pairs in order of (rank, place). One heap of them all would be walked down for each of ten
// million letters: pairs whose rank is not yet due wait in a list of that rank, where they come in
// order.
class Candidates {
 public:
  explicit Candidates(bool many) : waiting_from_(many ? 0 : kNoRank) {}

  void push(Candidate candidate) {
    if (candidate.rank < waiting_from_) return now_.push(candidate);
    std::vector<std::uint32_t>& places = later_[candidate.rank];
    if (places.empty()) ranks_.push(candidate.rank);
    places.push_back(candidate.left);
  }

  bool pop(Candidate& out) {
    if (now_.empty() && next_ == due_.size() && !take_next_rank()) return false;
    const bool any_due = next_ < due_.size();
    if (any_due) out = {waiting_from_ - 1, due_[next_]};
    if (any_due && (now_.empty() || now_.top() > out)) {
      ++next_;
    } else {
      out = now_.top();
      now_.pop();
    }
    return true;
  }

 private:
  template <class T>
  using Lowest = std::priority_queue<T, std::vector<T>, std::greater<>>;

  bool take_next_rank() {
    if (ranks_.empty()) return false;
    const auto list = later_.find(ranks_.top());
    due_ = std::move(list->second);
    later_.erase(list);
    if (!std::is_sorted(due_.begin(), due_.end())) std::sort(due_.begin(), due_.end());
    next_ = 0;
    waiting_from_ = ranks_.top() + 1;
    ranks_.pop();
    return true;
  }

  std::uint32_t waiting_from_;      // ranks below it are due
  Lowest<Candidate> now_;           // what came up since its rank was due
  std::vector<std::uint32_t> due_;  // places of rank waiting_from_ - 1
  std::size_t next_ = 0;            // of due_
  boost::unordered_flat_map<std::uint32_t, std::vector<std::uint32_t>> later_;
  Lowest<std::uint32_t> ranks_;  // of later_
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
    symbols.push_back({id, at == 0 ? kNowhere : at - 1, at + 1, kNoRank, kNoToken});
  }
  symbols.back().next = kNowhere;

  Candidates candidates(symbols.size() > kMany);
  const auto look_up = [&](std::uint32_t left) {
    Symbol& symbol = symbols[left];
    const Merge* merge =
        symbol.next == kNowhere ? nullptr : find(symbol.id, symbols[symbol.next].id);
    symbol.rank = merge ? merge->rank : kNoRank;
    if (!merge) return;
    symbol.joined = merge->joined;
    candidates.push({merge->rank, left});
  };
  for (std::uint32_t i = 0; i < symbols.size(); ++i) look_up(i);
  for (Candidate candidate{}; candidates.pop(candidate);) {
    const std::uint32_t left = candidate.left;
    Symbol& joined = symbols[left];
    if (joined.rank != candidate.rank) continue;  // overtaken by another join
    Symbol& gone = symbols[joined.next];
    joined.id = joined.joined;
    joined.next = gone.next;
    gone.rank = kNoRank;
    if (joined.next != kNowhere) symbols[joined.next].previous = left;
    if (joined.previous != kNowhere) look_up(joined.previous);
    look_up(left);
  }
  for (std::uint32_t at = 0; at != kNowhere; at = symbols[at].next) out.push_back(symbols[at].id);
}

}  // namespace kvfs::text

#include "engine/text/unigram.h"

#include <algorithm>
#include <cstring>

#include "engine/text/utf8.h"

namespace kvfs::text {

Trie Trie::build(std::vector<Entry> entries) {
  std::stable_sort(entries.begin(), entries.end(),
                   [](const Entry& a, const Entry& b) { return a.text < b.text; });
  Trie out;
  out.nodes_.emplace_back();
  // Breadth first: a node's entries are a range of the sorted ones, its children's are its parts.
  struct Range {
    std::size_t begin, end, depth;
  };
  std::vector<Range> ranges = {{0, entries.size(), 0}};
  for (std::size_t node = 0; node < ranges.size(); ++node) {
    auto [at, end, depth] = ranges[node];
    for (; at < end && entries[at].text.size() == depth; ++at) out.nodes_[node].id = entries[at].id;
    out.nodes_[node].first = static_cast<std::uint32_t>(out.nodes_.size());
    while (at < end) {
      const auto label = static_cast<std::uint8_t>(entries[at].text[depth]);
      std::size_t stop = at;
      while (stop < end && static_cast<std::uint8_t>(entries[stop].text[depth]) == label) ++stop;
      ranges.push_back({at, stop, depth + 1});
      Node child;
      child.label = label;
      out.nodes_.push_back(child);
      ++out.nodes_[node].count;
      at = stop;
    }
  }
  for (const Node& node : out.nodes_) out.labels_.push_back(node.label);
  return out;
}

std::uint32_t Trie::next(std::uint32_t node, std::uint8_t byte) const {
  const Node& here = nodes_[node];
  if (here.count == 256) return here.first + byte;
  const std::uint8_t* labels = labels_.data() + here.first;
  const void* found = std::memchr(labels, byte, here.count);
  if (!found) return kNone;
  return here.first + static_cast<std::uint32_t>(static_cast<const std::uint8_t*>(found) - labels);
}

Unigram Unigram::build(const std::vector<Piece>& pieces, TokenId unknown, double lowest,
                       Sums sums) {
  constexpr double kUnknownPenalty = 10;  // sentencepiece's and tokenizers'
  Unigram out;
  out.unknown_ = unknown;
  out.unknown_score_ = lowest - kUnknownPenalty;
  out.sums_ = sums;
  std::vector<Trie::Entry> entries;
  for (const Piece& piece : pieces) {
    if (piece.text.empty()) continue;
    entries.push_back({piece.text, static_cast<TokenId>(out.ids_.size())});
    out.ids_.push_back(piece.id);
    out.scores_.push_back(piece.score);
  }
  out.trie_ = Trie::build(std::move(entries));
  return out;
}

template <class Sum>
std::vector<Unigram::Found> Unigram::best(std::string_view text) const {
  struct End {
    Sum score = 0;
    std::uint32_t length = 0;  // of the best piece that ends here; 0: nothing does
    TokenId id = -1;
  };
  std::vector<End> ends(text.size() + 1);
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t letter = utf8_front(text.substr(at)).length;
    const Sum here = ends[at].score;
    const auto offer = [&](std::size_t length, TokenId id, Sum score) {
      End& end = ends[at + length];
      if (end.length == 0 || score > end.score) {
        end = {score, static_cast<std::uint32_t>(length), id};
      }
    };
    bool covered = false;  // is there a piece of this letter alone?
    std::uint32_t node = trie_.root();
    for (std::size_t i = at; i < text.size(); ++i) {
      node = trie_.next(node, static_cast<std::uint8_t>(text[i]));
      if (node == Trie::kNone) break;
      const TokenId place = trie_.id_of(node);
      if (place < 0) continue;
      const auto index = static_cast<std::size_t>(place);
      offer(i + 1 - at, ids_[index], static_cast<Sum>(scores_[index]) + here);
      covered = covered || i + 1 - at == letter;
    }
    if (!covered) offer(letter, unknown_, static_cast<Sum>(unknown_score_) + here);
    at += letter;
  }
  std::vector<Found> out;
  for (std::size_t at = text.size(); at > 0;) {
    const End& end = ends[at];
    out.push_back({end.id, at - end.length, at});
    at -= end.length;
  }
  std::reverse(out.begin(), out.end());
  return out;
}

std::vector<Unigram::Found> Unigram::encode(std::string_view text) const {
  return sums_ == Sums::kFloats ? best<float>(text) : best<double>(text);
}

}  // namespace kvfs::text

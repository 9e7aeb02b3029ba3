// What a Pipeline is made of, from a TokenizerSpec.
#include <algorithm>
#include <limits>
#include <map>

#include "engine/text/pipeline.h"
#include "engine/text/utf8.h"

namespace kvfs::text {
namespace {

// Longer tokens would make the work of one letter grow with the file.
constexpr std::size_t kLongestToken = 1024;

}  // namespace

Result<std::unique_ptr<Tokenizer>> Pipeline::build(TokenizerSpec spec) {
  if (spec.algorithm != Algorithm::kByteBpe) {
    for (std::size_t i = 0; i < spec.tokens.size(); ++i) {
      if (spec.tokens[i].text.size() > kLongestToken) {
        return fail(ErrorCode::kInvalid, "the vocabulary",
                    "token " + std::to_string(i) + " has " +
                        std::to_string(spec.tokens[i].text.size()) + " bytes, the most is " +
                        std::to_string(kLongestToken));
      }
    }
  }
  const std::int32_t size = std::max(spec.size, static_cast<std::int32_t>(spec.tokens.size()));
  Vocabulary vocabulary = Vocabulary::build(spec.tokens, spec.spelling, size);
  std::unique_ptr<Pipeline> out(new Pipeline(std::move(spec), std::move(vocabulary)));
  out->rules_ = std::move(out->spec_.rules);
  std::sort(out->rules_.begin(), out->rules_.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  out->has_normalized_added_ = std::any_of(out->rules_.begin(), out->rules_.end(),
                                           [](const auto& rule) { return rule.second.normalized; });
  if (out->spec_.algorithm == Algorithm::kUnigram) {
    out->build_unigram();
  } else {
    KVFS_TRY(out->spec_.merges_by_score ? out->add_scored_merges() : out->add_merges());
    out->find_cuts();
    out->find_whole_pieces();
  }
  out->spec_.tokens = {};
  out->spec_.merges = {};
  return out;
}

Status Pipeline::add_merges() {
  for (std::size_t byte = 0; byte < 256; ++byte) {
    const auto letter = static_cast<char>(byte);
    bpe_.set_byte(static_cast<std::uint8_t>(byte), vocabulary_.plain({&letter, 1}));
  }
  for (const MergeRule& merge : spec_.merges) {
    bpe_.add_merge(merge.left, merge.right, merge.rank, merge.joined);
  }
  return {};
}

TokenId Pipeline::symbol_of(std::string_view letter) {
  const auto next = static_cast<TokenId>(vocabulary_.strings() + symbol_text_.size());
  const auto [found, fresh] = symbols_.try_emplace(std::string(letter), next);
  if (fresh) symbol_text_.emplace_back(letter);
  return found->second;
}

// sentencepiece joins any two neighbours whose letters together are a piece, the best score first.
Status Pipeline::add_scored_merges() {
  std::map<double, std::uint32_t, std::greater<>> ranks;
  const auto count = static_cast<TokenId>(vocabulary_.strings());
  for (TokenId id = 0; id < count; ++id) {
    if (vocabulary_.plain(vocabulary_.spelling_of(id)) == id) {
      ranks[spec_.tokens[static_cast<std::size_t>(id)].score] = 0;
    }
  }
  std::uint32_t next = 0;
  for (auto& [score, rank] : ranks) rank = next++;
  for (TokenId id = 0; id < count; ++id) {
    const std::string_view text = vocabulary_.spelling_of(id);
    if (vocabulary_.plain(text) != id) continue;  // not plain, or another token of the same letters
    for (std::size_t at = 0; at < text.size();) {
      at += utf8_front(text.substr(at)).length;
      if (at == text.size()) break;
      const auto part = [this](std::string_view side) {
        const TokenId known = vocabulary_.plain(side);
        if (known != kNoToken || utf8_front(side).length != side.size()) return known;
        return symbol_of(side);
      };
      const TokenId left = part(text.substr(0, at));
      const TokenId right = part(text.substr(at));
      if (left == kNoToken || right == kNoToken) continue;
      bpe_.add_merge(left, right, ranks[spec_.tokens[static_cast<std::size_t>(id)].score], id);
    }
  }
  return {};
}

void Pipeline::build_unigram() {
  std::vector<Unigram::Piece> pieces;
  double lowest = std::numeric_limits<double>::max();
  for (TokenId id = 0; id < static_cast<TokenId>(vocabulary_.strings()); ++id) {
    const double score = spec_.tokens[static_cast<std::size_t>(id)].score;
    const TokenKind kind = vocabulary_.kind_of(id);
    const bool all = spec_.sums == Unigram::Sums::kDoubles;  // tokenizers looks at every score
    if (kind == TokenKind::kPlain || all) lowest = std::min(lowest, score);
    if (kind != TokenKind::kPlain) continue;
    pieces.push_back({vocabulary_.spelling_of(id), id, score});
  }
  unigram_ = Unigram::build(pieces, spec_.unknown, lowest, spec_.sums);
}

// Where no token has a ▁ behind another letter, no merge ever crosses that place, and words can be
// encoded apart: the same tokens in linear time.
void Pipeline::find_cuts() {
  if (spec_.algorithm != Algorithm::kLetterBpe) return;
  cuts_at_metaspace_ = true;
  for (TokenId id = 0; id < static_cast<TokenId>(vocabulary_.strings()); ++id) {
    if (vocabulary_.kind_of(id) != TokenKind::kPlain) continue;
    std::string_view text = vocabulary_.spelling_of(id);
    while (text.starts_with(kMetaspace)) text.remove_prefix(kMetaspace.size());
    if (text.find(kMetaspace) != std::string_view::npos) cuts_at_metaspace_ = false;
  }
}

void Pipeline::find_whole_pieces() {
  whole_.assign(vocabulary_.strings(), false);
  const bool ignores = spec_.ignores_merges;
  std::vector<TokenId> ids;
  for (std::size_t at = 0; at < whole_.size(); ++at) {
    const auto id = static_cast<TokenId>(at);
    const std::string_view text = vocabulary_.spelling_of(id);
    if (text.empty() || vocabulary_.plain(text) != id) continue;
    ids.clear();
    if (!ignores && spec_.algorithm == Algorithm::kByteBpe) bpe_.encode(text, ids);
    if (!ignores && spec_.algorithm == Algorithm::kLetterBpe && is_valid_utf8(text)) {
      encode_letters(text, ids);
    }
    whole_[at] = ignores || (ids.size() == 1 && ids[0] == id);
  }
}

}  // namespace kvfs::text

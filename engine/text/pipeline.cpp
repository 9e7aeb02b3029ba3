#include "engine/text/pipeline.h"

#include <algorithm>

#include <utf8proc.h>

#include "engine/text/utf8.h"

namespace kvfs::text {
namespace {

bool is_word(std::uint32_t code) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return code == 0x200C || code == 0x200D;  // joiners
  }
}

std::size_t last_letter(std::string_view text) {  // where it begins
  std::size_t at = text.size() - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80) --at;
  return at;
}

// The parts' texts one after the other; kept in `kept` where there are several.
std::string_view join(std::span<const TextPart> parts, std::string& kept) {
  if (parts.empty()) return {};
  if (parts.size() == 1) return parts[0].text;
  for (const TextPart& part : parts) kept += part.text;
  return kept;
}

bool starts_letter(std::string_view text) { return !text.empty() && utf8_front(text).valid; }

}  // namespace

AddedRule Pipeline::rule_of(TokenId id) const {
  const auto found = std::lower_bound(rules_.begin(), rules_.end(), id,
                                      [](const auto& rule, TokenId at) { return rule.first < at; });
  return found != rules_.end() && found->first == id ? found->second : AddedRule{};
}

// The longest added token that starts at a place. `from` is where the text before it is taken up
// to, `limit` how far control tokens may reach.
Pipeline::Added Pipeline::added_at(std::string_view text, std::size_t at, std::size_t from,
                                   std::size_t limit, SpecialText special, bool normalized) const {
  for (const TokenId id : vocabulary_.added_by(static_cast<std::uint8_t>(text[at]))) {
    const std::string_view spelling = vocabulary_.spelling_of(id);
    const bool control = vocabulary_.is_control(id);
    if (control && special == SpecialText::kAsText) continue;
    if (!text.substr(at, (control ? limit : text.size()) - at).starts_with(spelling)) continue;
    if (rules_.empty()) return {id, at, at + spelling.size()};
    const AddedRule rule = rule_of(id);
    if (rule.normalized != normalized) continue;
    Added found{id, at, at + spelling.size()};
    if (rule.single_word) {
      const bool before =
          at > 0 && is_word(code_point(text.substr(last_letter(text.substr(0, at)))).code);
      const bool after =
          starts_letter(text.substr(found.end)) && is_word(code_point(text.substr(found.end)).code);
      if (before || after) continue;
    }
    while (rule.lstrip && found.begin > from) {
      const std::size_t last = last_letter(text.substr(0, found.begin));
      if (last < from || !starts_letter(text.substr(last)) ||
          !is_space(code_point(text.substr(last)).code)) {
        break;
      }
      found.begin = last;
    }
    while (rule.rstrip && starts_letter(text.substr(found.end)) &&
           is_space(code_point(text.substr(found.end)).code)) {
      found.end += code_point(text.substr(found.end)).length;
    }
    return found;
  }
  return {};
}

std::vector<TokenId> Pipeline::encode(std::string_view utf8, SpecialText special) const {
  const TextPart part{utf8, special};
  return encode_parts({&part, 1}, Before::kNothing);
}

// Calls found(added token, its part's kind) for each added token of the parts, joined.
template <class Found>
void Pipeline::each_added(std::string_view text, std::span<const TextPart> parts,
                          const Found& found) const {
  std::size_t plain = 0;  // where text without added tokens began
  std::size_t end = 0;    // of the part
  for (const TextPart& part : parts) {
    std::size_t at = std::max(end, plain);
    end += part.text.size();
    while (at < end) {
      const Added added = added_at(text, at, plain, end, part.special, false);
      if (added.id == kNoToken) {
        ++at;
        continue;
      }
      found(added, part.special);
      at = plain = added.end;
    }
  }
}

std::vector<TokenId> Pipeline::encode_parts(std::span<const TextPart> parts, Before start) const {
  std::string kept;
  const std::string_view text = join(parts, kept);
  std::vector<TokenId> out;
  std::size_t plain = 0;
  const auto before = [start](std::size_t at) { return at == 0 ? start : Before::kAddedToken; };
  each_added(text, parts, [&](const Added& added, SpecialText special) {
    encode_text(text.substr(plain, added.begin - plain), before(plain), special, out);
    out.push_back(added.id);
    plain = added.end;
  });
  encode_text(text.substr(plain), before(plain), SpecialText::kAsText, out);
  return out;
}

std::vector<Stretch> Pipeline::stretches(std::span<const TextPart> parts) const {
  const auto spaces = [this](Before before) {
    const TextPart letter{"x", SpecialText::kAsText};
    const std::vector<TokenId> ids = encode_parts({&letter, 1}, before);
    return !ids.empty() && bytes_of(ids[0]).starts_with(' ');
  };
  const bool first = spaces(Before::kNothing), later = spaces(Before::kAddedToken);
  std::string kept;
  const std::string_view text = join(parts, kept);
  std::vector<Stretch> out;
  std::size_t plain = 0;
  const auto add_text = [&](std::size_t end) {
    if (plain < end) out.push_back({kNoToken, plain, end, plain == 0 ? first : later});
  };
  each_added(text, parts, [&](const Added& added, SpecialText) {
    if (!vocabulary_.is_control(added.id)) return;
    add_text(added.begin);
    out.push_back({added.id, added.begin, added.end, false});
    plain = added.end;
  });
  add_text(text.size());
  return out;
}

void Pipeline::encode_text(std::string_view text, Before before, SpecialText special,
                           std::vector<TokenId>& out) const {
  while (!text.empty()) {
    const std::size_t valid = valid_utf8_prefix(text);
    if (valid > 0) {
      const std::string_view part = text.substr(0, valid);
      if (spec_.normalizer.empty()) {
        encode_normalized(part, before, special, out);
      } else {
        encode_normalized(spec_.normalizer.apply(part, before), before, special, out);
      }
    }
    text.remove_prefix(valid);
    if (text.empty()) return;
    const std::size_t bad = utf8_front(text).length;
    bool after_unknown = false;
    if (spec_.algorithm == Algorithm::kByteBpe) {
      bpe_.encode(text.substr(0, bad), out);
    } else {
      add_unknown(text.substr(0, bad), after_unknown, out);
    }
    text.remove_prefix(bad);
    before = Before::kText;
  }
}

void Pipeline::encode_normalized(std::string_view text, Before before, SpecialText special,
                                 std::vector<TokenId>& out) const {
  if (!has_normalized_added_) return encode_pieces(text, before, out);
  std::size_t plain = 0;
  for (std::size_t at = 0; at < text.size();) {
    const Added added = added_at(text, at, plain, text.size(), special, true);
    if (added.id == kNoToken) {
      ++at;
      continue;
    }
    encode_pieces(text.substr(plain, added.begin - plain),
                  plain == 0 ? before : Before::kAddedToken, out);
    out.push_back(added.id);
    at = plain = added.end;
  }
  encode_pieces(text.substr(plain), plain == 0 ? before : Before::kAddedToken, out);
}

void Pipeline::encode_pieces(std::string_view text, Before before,
                             std::vector<TokenId>& out) const {
  std::string changed;
  if (!spec_.before_pieces.empty()) {
    changed = spec_.before_pieces.apply(text, before);
    text = changed;
  }
  PreTokenizer::Pieces pieces(spec_.pre, text);
  for (std::string_view piece; pieces.next(piece);) {
    if (!cuts_at_metaspace_) {
      encode_piece(piece, out);
      continue;
    }
    while (!piece.empty()) {  // before each ▁ that follows another letter
      std::size_t end = 0;
      while (piece.substr(end).starts_with(kMetaspace)) end += kMetaspace.size();
      end = std::min(piece.find(kMetaspace, end), piece.size());
      encode_piece(piece.substr(0, end), out);
      piece.remove_prefix(end);
    }
  }
}

void Pipeline::encode_piece(std::string_view piece, std::vector<TokenId>& out) const {
  if (spec_.algorithm == Algorithm::kUnigram) return encode_unigram(piece, out);
  const TokenId id = vocabulary_.plain(piece);
  if (id != kNoToken && whole_[static_cast<std::size_t>(id)]) {
    out.push_back(id);
  } else if (spec_.algorithm == Algorithm::kByteBpe) {
    bpe_.encode(piece, out);
  } else {
    encode_letters(piece, out);
  }
}

void Pipeline::encode_letters(std::string_view piece, std::vector<TokenId>& out) const {
  std::vector<TokenId> symbols;
  symbols.reserve(piece.size());
  bool after_unknown = false;
  while (!piece.empty()) {
    const std::string_view letter = piece.substr(0, code_point(piece).length);
    piece.remove_prefix(letter.size());
    TokenId id = vocabulary_.plain(letter);
    if (id == kNoToken && !symbols_.empty()) {
      const auto found = symbols_.find(std::string(letter));
      if (found != symbols_.end()) id = found->second;
    }
    if (id == kNoToken) {
      add_unknown(letter, after_unknown, symbols);
    } else {
      symbols.push_back(id);
      after_unknown = false;
    }
  }
  const std::size_t begin = out.size();
  bpe_.merge(symbols, out);
  if (symbols_.empty()) return;
  // Letters beyond the vocabulary that no merge has taken up.
  const std::vector<TokenId> merged(out.begin() + static_cast<std::ptrdiff_t>(begin), out.end());
  out.resize(begin);
  after_unknown = false;
  for (const TokenId id : merged) {
    const auto beyond = static_cast<std::size_t>(id) - vocabulary_.strings();
    if (id >= 0 && static_cast<std::size_t>(id) >= vocabulary_.strings()) {
      add_unknown(symbol_text_[beyond], after_unknown, out);
    } else if (id != spec_.unknown || !after_unknown) {
      after_unknown = id == spec_.unknown && spec_.fuses_unknown;
      out.push_back(id);
    }
  }
}

void Pipeline::encode_unigram(std::string_view piece, std::vector<TokenId>& out) const {
  bool after_unknown = false;
  for (const Unigram::Found& found : unigram_.encode(piece)) {
    if (found.id == spec_.unknown) {
      add_unknown(piece.substr(found.begin, found.end - found.begin), after_unknown, out);
    } else {
      out.push_back(found.id);
      after_unknown = false;
    }
  }
}

bool Pipeline::add_bytes(std::string_view bytes, std::vector<TokenId>& out) const {
  if (!spec_.byte_fallback) return false;
  for (const char byte : bytes) {
    if (vocabulary_.byte(static_cast<std::uint8_t>(byte)) == kNoToken) return false;
  }
  for (const char byte : bytes) out.push_back(vocabulary_.byte(static_cast<std::uint8_t>(byte)));
  return true;
}

void Pipeline::add_unknown(std::string_view bytes, bool& after_unknown,
                           std::vector<TokenId>& out) const {
  if (add_bytes(bytes, out)) {
    after_unknown = false;
  } else if (spec_.unknown != kNoToken) {
    if (!after_unknown) out.push_back(spec_.unknown);
    after_unknown = spec_.fuses_unknown;
  }
}

}  // namespace kvfs::text

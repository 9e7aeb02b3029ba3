#include "engine/text/vocabulary.h"

#include <algorithm>
#include <charconv>

#include "engine/text/utf8.h"

namespace kvfs::text {
namespace {

// GPT-2's alphabet: printable Latin-1 stands for itself, every other byte for U+0100 and up, in
// order.
std::array<std::int16_t, 0x180> byte_alphabet() {
  std::array<std::int16_t, 0x180> bytes{};
  bytes.fill(-1);
  std::size_t next = 0x100;
  for (std::size_t byte = 0; byte < 256; ++byte) {
    const bool itself = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
    bytes[itself ? byte : next++] = static_cast<std::int16_t>(byte);
  }
  return bytes;
}

// "<0x0A>" → 10.
std::optional<std::uint8_t> named_byte(std::string_view spelling) {
  if (spelling.size() != 6 || !spelling.starts_with("<0x") || spelling[5] != '>') {
    return std::nullopt;
  }
  std::uint8_t byte = 0;
  const char* end = spelling.data() + 5;
  const auto read = std::from_chars(spelling.data() + 3, end, byte, 16);
  if (read.ec != std::errc() || read.ptr != end) return std::nullopt;
  return byte;
}

std::string without_metaspace(std::string_view spelling) {
  std::string out;
  for (std::size_t at = 0; at < spelling.size();) {
    const bool space = spelling.substr(at).starts_with(kMetaspace);
    out += space ? ' ' : spelling[at];
    at += space ? kMetaspace.size() : 1;
  }
  return out;
}

}  // namespace

std::optional<std::string> Vocabulary::from_byte_level(std::string_view spelling) {
  static constexpr std::size_t kTwoBytes = 2;
  static const auto alphabet = byte_alphabet();
  std::string bytes;
  bytes.reserve(spelling.size());
  for (std::size_t i = 0; i < spelling.size();) {
    const Utf8Front front = utf8_front(spelling.substr(i));
    if (!front.valid || front.length > kTwoBytes) return std::nullopt;
    const std::size_t code = code_point(spelling.substr(i)).code;
    if (code >= alphabet.size() || alphabet[code] < 0) return std::nullopt;
    bytes += static_cast<char>(alphabet[code]);
    i += front.length;
  }
  return bytes;
}

void Vocabulary::Strings::add(std::string_view text) {
  bytes.insert(bytes.end(), text.begin(), text.end());
  ends.push_back(bytes.size());
}

std::string_view Vocabulary::Strings::at(std::size_t place) const {
  const std::size_t begin = place == 0 ? 0 : ends[place - 1];
  return {bytes.data() + begin, ends[place] - begin};
}

Vocabulary Vocabulary::build(const std::vector<SpelledToken>& tokens, Spelling spelling,
                             std::int32_t size) {
  Vocabulary out;
  out.size_ = size;
  out.bytes_.fill(kNoToken);
  for (const SpelledToken& token : tokens) {
    TokenKind kind = token.kind;
    std::string spelled = kind == TokenKind::kUnused ? "" : token.text;
    std::string shown = spelled;
    if (kind == TokenKind::kByte) {
      const auto byte = named_byte(spelled);
      const auto id = static_cast<TokenId>(out.kinds_.size());
      if (byte) out.bytes_[*byte] = id;
      if (byte) shown = std::string(1, static_cast<char>(*byte));
    } else if (kind == TokenKind::kPlain && spelling == Spelling::kByteLevel) {
      if (auto plain = from_byte_level(spelled)) {
        spelled = shown = std::move(*plain);
      } else {
        kind = TokenKind::kLiteral;
      }
    } else if (spelling == Spelling::kMetaspace && kind != TokenKind::kControl) {
      shown = without_metaspace(spelled);
    }
    out.spelled_.add(spelled);
    if (spelling != Spelling::kByteLevel) out.shown_.add(shown);
    out.kinds_.push_back(kind);
  }
  out.index();
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    if (tokens[i].mergeable) out.plain_.try_emplace(out.spelling_of(id), id);
  }
  return out;
}

void Vocabulary::index() {
  plain_.reserve(kinds_.size());
  for (TokenId id = 0; id < static_cast<TokenId>(kinds_.size()); ++id) {
    const std::string_view text = spelling_of(id);
    if (text.empty()) continue;
    const TokenKind kind = kind_of(id);
    if (kind == TokenKind::kPlain) {
      plain_.insert_or_assign(text, id);
    } else if (kind == TokenKind::kControl || kind == TokenKind::kUserDefined) {
      added_[static_cast<std::uint8_t>(text[0])].push_back(id);
    }
  }
  for (std::vector<TokenId>& ids : added_) {
    std::stable_sort(ids.begin(), ids.end(), [this](TokenId a, TokenId b) {
      return spelling_of(a).size() > spelling_of(b).size();
    });
  }
}

std::string_view Vocabulary::spelling_of(TokenId id) const {
  const auto at = static_cast<std::size_t>(id);
  return id < 0 || at >= kinds_.size() ? std::string_view() : spelled_.at(at);
}

std::string_view Vocabulary::bytes_of(TokenId id) const {
  const auto at = static_cast<std::size_t>(id);
  if (id < 0 || at >= kinds_.size()) return {};
  return shown_.ends.empty() ? spelled_.at(at) : shown_.at(at);
}

TokenKind Vocabulary::kind_of(TokenId id) const {
  const auto at = static_cast<std::size_t>(id);
  return id < 0 || at >= kinds_.size() ? TokenKind::kUnused : kinds_[at];
}

TokenId Vocabulary::plain(std::string_view spelling) const {
  const auto found = plain_.find(spelling);
  return found == plain_.end() ? kNoToken : found->second;
}

bool Vocabulary::is_added(std::string_view spelling) const {
  if (spelling.empty()) return false;
  const auto& ids = added_[static_cast<std::uint8_t>(spelling[0])];
  return std::any_of(ids.begin(), ids.end(),
                     [&](TokenId id) { return spelling_of(id) == spelling; });
}

TokenId Vocabulary::control(std::string_view spelling) const {
  if (spelling.empty()) return kNoToken;
  const auto& ids = added_[static_cast<std::uint8_t>(spelling[0])];
  const auto found = std::find_if(ids.begin(), ids.end(), [&](TokenId id) {
    return is_control(id) && spelling_of(id) == spelling;
  });
  return found == ids.end() ? kNoToken : *found;
}

}  // namespace kvfs::text

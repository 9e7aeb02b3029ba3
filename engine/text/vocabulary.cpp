#include "engine/text/vocabulary.h"

#include <algorithm>
#include <limits>

#include "engine/text/utf8.h"

namespace kvfs::text {
namespace {

constexpr const char* kTokens = "tokenizer.ggml.tokens";
constexpr const char* kTypes = "tokenizer.ggml.token_type";

std::string where(const container::GgufFile& file, const char* field) {
  return file.path().string() + ": " + field;
}

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

}  // namespace

std::optional<std::string> Vocabulary::from_byte_level(std::string_view spelling) {
  static constexpr std::size_t kTwoBytes = 2;
  static const auto alphabet = byte_alphabet();
  std::string bytes;
  bytes.reserve(spelling.size());
  for (std::size_t i = 0; i < spelling.size();) {
    const Utf8Front front = utf8_front(spelling.substr(i));
    if (!front.valid || front.length > kTwoBytes) return std::nullopt;
    std::size_t code = static_cast<std::uint8_t>(spelling[i]);
    if (front.length == kTwoBytes) {
      code = (code & 0x1FU) << 6U | (static_cast<std::uint8_t>(spelling[i + 1]) & 0x3FU);
    }
    if (code >= alphabet.size() || alphabet[code] < 0) return std::nullopt;
    bytes += static_cast<char>(alphabet[code]);
    i += front.length;
  }
  return bytes;
}

Result<Vocabulary> Vocabulary::load(const container::GgufFile& file) {
  KVFS_ASSIGN(const container::GgufArray* tokens, file.array_at(kTokens));
  const std::vector<std::string>& spellings = tokens->strings;
  if (spellings.empty()) {
    return fail(ErrorCode::kInvalid, where(file, kTokens), "it holds no strings",
                "convert the model again, with its vocabulary");
  }
  if (spellings.size() > std::numeric_limits<TokenId>::max()) {
    return fail(ErrorCode::kInvalid, where(file, kTokens), "more tokens than there are ids");
  }
  Vocabulary out;
  out.kinds_.assign(spellings.size(), Kind::kPlain);
  out.size_ = static_cast<std::int32_t>(spellings.size());
  KVFS_TRY(out.read_kinds(file));
  KVFS_TRY(out.read_size(file));
  for (std::size_t i = 0; i < spellings.size(); ++i) {
    std::string bytes = out.kinds_[i] == Kind::kUnused ? "" : spellings[i];
    if (out.kinds_[i] == Kind::kPlain) {
      if (auto plain = from_byte_level(spellings[i])) {
        bytes = std::move(*plain);
      } else {
        out.kinds_[i] = Kind::kLiteral;
      }
    }
    out.bytes_.insert(out.bytes_.end(), bytes.begin(), bytes.end());
    out.ends_.push_back(out.bytes_.size());
  }
  out.index();
  return out;
}

Status Vocabulary::read_kinds(const container::GgufFile& file) {
  if (!file.has(kTypes)) return {};
  KVFS_ASSIGN(const container::GgufArray* types, file.array_at(kTypes));
  if (types->integers.size() != kinds_.size()) {
    return fail(ErrorCode::kInvalid, where(file, kTypes),
                std::to_string(types->integers.size()) + " types for " +
                    std::to_string(kinds_.size()) + " tokens");
  }
  for (std::size_t i = 0; i < kinds_.size(); ++i) {
    switch (types->integers[i]) {  // ggml's token types
      case 1:
      case 6:
        kinds_[i] = Kind::kPlain;
        break;
      case 2:
      case 3:
        kinds_[i] = Kind::kControl;
        break;
      case 4:
        kinds_[i] = Kind::kUserDefined;
        break;
      case 5:
        kinds_[i] = Kind::kUnused;
        break;
      default:
        return fail(ErrorCode::kInvalid, where(file, kTypes),
                    "token " + std::to_string(i) + " has type " +
                        std::to_string(types->integers[i]) + ", types are 1 to 6");
    }
  }
  return {};
}

// The model may have more rows than there are strings.
Status Vocabulary::read_size(const container::GgufFile& file) {
  if (!file.has("general.architecture")) return {};
  KVFS_ASSIGN(const std::string family, file.string_at("general.architecture"));
  const std::string key = family + ".vocab_size";
  if (!file.has(key)) return {};
  KVFS_ASSIGN(const std::uint64_t rows, file.unsigned_at(key));
  if (rows > std::numeric_limits<std::int32_t>::max()) {
    return fail(ErrorCode::kInvalid, where(file, key.c_str()),
                std::to_string(rows) + " is more than there are ids");
  }
  size_ = std::max(size_, static_cast<std::int32_t>(rows));
  return {};
}

void Vocabulary::index() {
  plain_.reserve(kinds_.size());
  for (TokenId id = 0; id < static_cast<TokenId>(kinds_.size()); ++id) {
    const std::string_view bytes = bytes_of(id);
    if (bytes.empty()) continue;
    const Kind kind = kinds_[static_cast<std::size_t>(id)];
    if (kind == Kind::kPlain) {
      plain_.insert_or_assign(bytes, id);
    } else if (kind == Kind::kControl || kind == Kind::kUserDefined) {
      added_[static_cast<std::uint8_t>(bytes[0])].push_back(id);
    }
  }
  for (std::vector<TokenId>& ids : added_) {
    std::stable_sort(ids.begin(), ids.end(), [this](TokenId a, TokenId b) {
      return bytes_of(a).size() > bytes_of(b).size();
    });
  }
}

std::string_view Vocabulary::bytes_of(TokenId id) const {
  const auto at = static_cast<std::size_t>(id);
  if (id < 0 || at >= ends_.size()) return {};
  const std::size_t begin = at == 0 ? 0 : ends_[at - 1];
  return {bytes_.data() + begin, ends_[at] - begin};
}

bool Vocabulary::is_control(TokenId id) const {
  return id >= 0 && static_cast<std::size_t>(id) < kinds_.size() &&
         kinds_[static_cast<std::size_t>(id)] == Kind::kControl;
}

TokenId Vocabulary::plain(std::string_view bytes) const {
  const auto found = plain_.find(bytes);
  return found == plain_.end() ? kNoToken : found->second;
}

Vocabulary::Added Vocabulary::added_at(std::string_view text, SpecialText special) const {
  for (const TokenId id : added_[static_cast<std::uint8_t>(text[0])]) {
    if (special == SpecialText::kAsText && is_control(id)) continue;
    const std::string_view spelling = bytes_of(id);
    if (text.starts_with(spelling)) return {id, spelling.size()};
  }
  return {};
}

bool Vocabulary::is_added(std::string_view spelling) const {
  return !spelling.empty() && added_at(spelling, SpecialText::kAsControl).length == spelling.size();
}

TokenId Vocabulary::control(std::string_view spelling) const {
  if (!is_added(spelling)) return kNoToken;
  const TokenId id = added_at(spelling, SpecialText::kAsControl).id;
  return is_control(id) ? id : kNoToken;
}

}  // namespace kvfs::text

#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

#include "engine/text/readers.h"
#include "engine/text/utf8.h"

namespace kvfs::text {
namespace {

// One message of a protocol buffer, field by field.
class Message {
 public:
  explicit Message(std::string_view bytes) : rest_(bytes) {}

  struct Field {
    std::uint64_t number = 0;
    std::uint64_t value = 0;  // varints and fixed numbers
    std::string_view bytes;   // strings and messages
    bool is_bytes = false;
  };
  bool done() const { return rest_.empty(); }
  // nullopt where the bytes are no field.
  std::optional<Field> next() {
    const auto key = varint();
    if (!key || *key >> 3U == 0) return std::nullopt;
    Field out;
    out.number = *key >> 3U;
    switch (*key & 7U) {
      case 0: {
        const auto value = varint();
        if (!value) return std::nullopt;
        out.value = *value;
        return out;
      }
      case 1:
        return fixed(8, out);
      case 5:
        return fixed(4, out);
      case 2: {
        const auto size = varint();
        if (!size || *size > rest_.size()) return std::nullopt;
        out.bytes = rest_.substr(0, *size);
        out.is_bytes = true;
        rest_.remove_prefix(*size);
        return out;
      }
      default:
        return std::nullopt;
    }
  }

 private:
  std::optional<std::uint64_t> varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      if (rest_.empty()) return std::nullopt;
      const auto byte = static_cast<std::uint8_t>(rest_[0]);
      rest_.remove_prefix(1);
      value |= std::uint64_t{byte & 0x7FU} << shift;
      if (byte < 0x80) return value;
    }
    return std::nullopt;
  }
  std::optional<Field> fixed(std::size_t size, Field out) {
    if (rest_.size() < size) return std::nullopt;
    std::memcpy(&out.value, rest_.data(), size);
    rest_.remove_prefix(size);
    return out;
  }

  std::string_view rest_;
};

class Reader {
 public:
  Reader(std::string_view bytes, std::string where) : bytes_(bytes), where_(std::move(where)) {
    spec_.spelling = Spelling::kMetaspace;
    spec_.sums = Unigram::Sums::kFloats;
    spec_.algorithm = Algorithm::kUnigram;  // the format's default
  }

  Result<TokenizerSpec> read() {
    KVFS_TRY(each("model", bytes_, [this](const Message::Field& field) -> Status {
      if (field.number == 1 && field.is_bytes) return read_piece(field.bytes);
      if (field.number == 2 && field.is_bytes) return read_trainer(field.bytes);
      if (field.number == 3 && field.is_bytes) return read_normalizer(field.bytes);
      return {};
    }));
    if (spec_.tokens.empty()) return wrong("pieces", "there are none");
    if (spec_.unknown == kNoToken) return wrong("pieces", "none is the unknown token");
    spec_.size = static_cast<std::int32_t>(spec_.tokens.size());
    KVFS_TRY(id_at("bos_id", bos_, spec_.begin));
    KVFS_TRY(id_at("eos_id", eos_, spec_.end));
    if (!map_.empty()) {
      auto map = CharsMap::read(map_);
      if (!map) return wrong("normalizer_spec.precompiled_charsmap", map.error().why);
      NormalizerStep step{NormalizerStep::Kind::kCharsMap};
      step.map = *std::move(map);
      spec_.normalizer.add(std::move(step));
    }
    add_sentencepiece_steps(collapses_, prefix_, true, spec_.normalizer);
    return std::move(spec_);
  }

 private:
  tl::unexpected<Error> wrong(const std::string& field, std::string why) const {
    return fail(ErrorCode::kInvalid, where_ + ": " + field, std::move(why), "fetch the file again");
  }
  tl::unexpected<Error> unsupported(const std::string& field, std::string why) const {
    return fail(ErrorCode::kUnsupported, where_ + ": " + field, std::move(why),
                "use the model's tokenizer.json or a GGUF of it");
  }

  template <class Take>
  Status each(const std::string& name, std::string_view bytes, Take take) const {
    Message message(bytes);
    while (!message.done()) {
      const auto field = message.next();
      if (!field) return wrong(name, "it is no protocol buffer");
      KVFS_TRY(take(*field));
    }
    return {};
  }

  Status read_piece(std::string_view bytes) {
    const std::string name = "pieces[" + std::to_string(spec_.tokens.size()) + "]";
    if (spec_.tokens.size() >= std::numeric_limits<TokenId>::max()) return wrong(name, "too many");
    SpelledToken token;
    std::uint64_t type = 1;
    KVFS_TRY(each(name, bytes, [&](const Message::Field& field) -> Status {
      if (field.number == 1) token.text = field.bytes;
      if (field.number == 3) type = field.value;
      if (field.number == 2) {
        const auto bits = static_cast<std::uint32_t>(field.value);
        float score = 0;
        std::memcpy(&score, &bits, sizeof bits);
        token.score = score;
      }
      return {};
    }));
    constexpr TokenKind kKinds[] = {TokenKind::kPlain,   TokenKind::kUnknown,
                                    TokenKind::kControl, TokenKind::kUserDefined,
                                    TokenKind::kUnused,  TokenKind::kByte};
    if (type < 1 || type > 6) return wrong(name, "its type is " + std::to_string(type));
    if (token.text.empty()) return wrong(name, "it is empty");
    if (!is_valid_utf8(token.text)) return wrong(name, "it is not UTF-8");
    if (!std::isfinite(token.score)) return wrong(name, "its score is no number");
    token.kind = kKinds[type - 1];
    token.mergeable = token.kind == TokenKind::kUserDefined;
    if (token.kind == TokenKind::kUnknown) {
      if (spec_.unknown != kNoToken) return wrong(name, "it is a second unknown token");
      spec_.unknown = static_cast<TokenId>(spec_.tokens.size());
    }
    spec_.tokens.push_back(std::move(token));
    return {};
  }

  Status read_trainer(std::string_view bytes) {
    return each("trainer_spec", bytes, [this](const Message::Field& field) -> Status {
      switch (field.number) {
        case 3:
          if (field.value != 1 && field.value != 2) {
            return unsupported("trainer_spec.model_type", "only UNIGRAM and BPE are known");
          }
          spec_.algorithm = field.value == 1 ? Algorithm::kUnigram : Algorithm::kLetterBpe;
          spec_.merges_by_score = field.value == 2;
          return {};
        case 24:
          if (field.value == 0) return {};
          return unsupported("trainer_spec.treat_whitespace_as_suffix", "it is not known");
        case 35:
          spec_.byte_fallback = field.value != 0;
          return {};
        case 41:
          bos_ = static_cast<std::int64_t>(field.value);
          return {};
        case 42:
          eos_ = static_cast<std::int64_t>(field.value);
          return {};
        default:
          return {};
      }
    });
  }

  Status read_normalizer(std::string_view bytes) {
    return each("normalizer_spec", bytes, [this](const Message::Field& field) -> Status {
      if (field.number == 2) map_ = field.bytes;
      if (field.number == 3) prefix_ = field.value != 0;
      if (field.number == 4) collapses_ = field.value != 0;
      if (field.number == 5 && field.value == 0) {
        return unsupported("normalizer_spec.escape_whitespaces", "spaces that stay spaces");
      }
      return {};
    });
  }

  // Ids are −1 where there is no such token.
  Status id_at(const char* name, std::int64_t id, std::vector<TokenId>& out) const {
    if (id < 0) return {};
    if (id >= spec_.size) {
      return wrong(std::string("trainer_spec.") + name,
                   "id " + std::to_string(id) + " of " + std::to_string(spec_.size) + " pieces");
    }
    out.push_back(static_cast<TokenId>(id));
    return {};
  }

  std::string_view bytes_, map_;
  std::string where_;
  TokenizerSpec spec_;
  std::int64_t bos_ = 1, eos_ = 2;  // the format's defaults
  bool prefix_ = true, collapses_ = true;
};

}  // namespace

Result<TokenizerSpec> read_sentencepiece(std::string_view bytes, const std::string& where) {
  return Reader(bytes, where).read();
}

}  // namespace kvfs::text

#include "engine/text/bpe_tokenizer.h"

#include <algorithm>
#include <array>
#include <optional>

#include "engine/text/utf8.h"

namespace kvfs::text {
namespace {

constexpr const char* kMerges = "tokenizer.ggml.merges";

// Control tokens that end a turn in the templates of known families.
constexpr std::array<std::string_view, 6> kTurnEnds = {
    "<|im_end|>", "<|eot_id|>", "<|end_of_turn|>", "<end_of_turn>", "<|end|>", "<|endoftext|>"};

std::string where(const container::GgufFile& file, const std::string& field) {
  return file.path().string() + ": " + field;
}

// nullopt where the file does not have the field.
Result<std::optional<TokenId>> token_at(const container::GgufFile& file, const std::string& field,
                                        std::int32_t vocab_size) {
  if (!file.has(field)) return std::optional<TokenId>{};
  KVFS_ASSIGN(const std::uint64_t id, file.unsigned_at(field));
  if (id >= static_cast<std::uint64_t>(vocab_size)) {
    return fail(ErrorCode::kInvalid, where(file, field),
                "token " + std::to_string(id) + " of a vocabulary of " + std::to_string(vocab_size),
                "convert the model again");
  }
  return std::optional<TokenId>(static_cast<TokenId>(id));
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> BpeTokenizer::load(const container::GgufFile& file) {
  KVFS_ASSIGN(Vocabulary vocabulary, Vocabulary::load(file));
  KVFS_ASSIGN(const std::string name, file.string_at("tokenizer.ggml.pre"));
  auto pre = PreTokenizer::named(name);
  if (!pre) {
    Error error = std::move(pre).error();
    error.what = where(file, error.what);
    return fail(std::move(error));
  }
  std::unique_ptr<BpeTokenizer> out(new BpeTokenizer(std::move(vocabulary), *std::move(pre)));
  KVFS_TRY(out->read_merges(file));
  KVFS_TRY(out->read_begin(file));
  KVFS_TRY(out->read_end(file));
  out->find_whole_pieces();
  return out;
}

Status BpeTokenizer::read_merges(const container::GgufFile& file) {
  for (std::size_t byte = 0; byte < 256; ++byte) {
    const auto letter = static_cast<char>(byte);
    bpe_.set_byte(static_cast<std::uint8_t>(byte), vocabulary_.plain({&letter, 1}));
  }
  KVFS_ASSIGN(const container::GgufArray* merges, file.array_at(kMerges));
  if (merges->strings.empty() && !(merges->integers.empty() && merges->reals.empty())) {
    return fail(ErrorCode::kInvalid, where(file, kMerges), "it holds numbers, not strings");
  }
  for (std::size_t rank = 0; rank < merges->strings.size(); ++rank) {
    const std::string& line = merges->strings[rank];
    const auto broken = [&](const std::string& why) {
      return fail(ErrorCode::kInvalid, where(file, kMerges),
                  "merge " + std::to_string(rank) + " (\"" + line.substr(0, 80) + "\") " + why,
                  "convert the model again");
    };
    const std::size_t space = line.find(' ', 1);
    if (space == std::string::npos || space + 1 == line.size()) return broken("is not a pair");
    const auto left = Vocabulary::from_byte_level(line.substr(0, space));
    const auto right = Vocabulary::from_byte_level(line.substr(space + 1));
    if (!left || !right) return broken("is not spelled in byte-level letters");
    const std::string joined = *left + *right;
    // What merging would make of such a pair is an added token, which only its spelling gives.
    if (vocabulary_.is_added(*left) || vocabulary_.is_added(*right) ||
        vocabulary_.is_added(joined)) {
      continue;
    }
    const TokenId a = vocabulary_.plain(*left);
    const TokenId b = vocabulary_.plain(*right);
    const TokenId ab = vocabulary_.plain(joined);
    if (a == kNoToken || b == kNoToken) return broken("joins what is not a token");
    if (ab == kNoToken) return broken("makes what is not a token");
    bpe_.add_merge(a, b, static_cast<std::uint32_t>(rank), ab);
  }
  return {};
}

Status BpeTokenizer::read_begin(const container::GgufFile& file) {
  constexpr const char* kAdds = "tokenizer.ggml.add_bos_token";
  constexpr const char* kBos = "tokenizer.ggml.bos_token_id";
  bool adds = pre_.adds_bos();
  if (file.has(kAdds)) {
    KVFS_ASSIGN(adds, file.bool_at(kAdds));
  }
  KVFS_ASSIGN(const std::optional<TokenId> bos, token_at(file, kBos, vocabulary_.size()));
  if (!adds) return {};
  if (!bos) {
    return fail(ErrorCode::kInvalid, where(file, kBos), "missing, though texts begin with it",
                "convert the model again");
  }
  begin_ = {*bos};
  return {};
}

Status BpeTokenizer::read_end(const container::GgufFile& file) {
  const auto add = [this](std::optional<TokenId> id) {
    if (id && std::find(end_.begin(), end_.end(), *id) == end_.end()) end_.push_back(*id);
  };
  for (const char* name : {"eos", "eot"}) {
    const std::string field = std::string("tokenizer.ggml.") + name + "_token_id";
    KVFS_ASSIGN(const std::optional<TokenId> id, token_at(file, field, vocabulary_.size()));
    add(id);
  }
  for (const char* name : {"unknown", "padding"}) {  // not used, but not to be wrong either
    const std::string field = std::string("tokenizer.ggml.") + name + "_token_id";
    KVFS_TRY(token_at(file, field, vocabulary_.size()));
  }
  constexpr const char* kTemplate = "tokenizer.chat_template";
  if (!file.has(kTemplate)) return {};
  KVFS_ASSIGN(const std::string chat, file.string_at(kTemplate));
  for (const std::string_view spelling : kTurnEnds) {
    const TokenId id = vocabulary_.control(spelling);
    if (id != kNoToken && chat.find(spelling) != std::string::npos) add(id);
  }
  return {};
}

void BpeTokenizer::find_whole_pieces() {
  whole_.assign(vocabulary_.strings(), false);
  std::vector<TokenId> ids;
  for (std::size_t at = 0; at < whole_.size(); ++at) {
    const auto id = static_cast<TokenId>(at);
    const std::string_view bytes = vocabulary_.bytes_of(id);
    if (bytes.empty() || vocabulary_.plain(bytes) != id) continue;
    ids.clear();
    if (!pre_.ignores_merges()) bpe_.encode(bytes, ids);
    whole_[at] = pre_.ignores_merges() || (ids.size() == 1 && ids[0] == id);
  }
}

std::vector<TokenId> BpeTokenizer::encode(std::string_view utf8, SpecialText special) const {
  const TextPart part{utf8, special};
  return encode_parts({&part, 1});
}

std::vector<TokenId> BpeTokenizer::encode_parts(std::span<const TextPart> parts) const {
  std::string joined;
  std::string_view text = parts.empty() ? std::string_view() : parts[0].text;
  if (parts.size() > 1) {
    for (const TextPart& part : parts) joined += part.text;
    text = joined;
  }
  std::vector<TokenId> out;
  std::size_t plain = 0;  // where text without added tokens began
  std::size_t end = 0;    // of the part
  for (const TextPart& part : parts) {
    std::size_t at = std::max(end, plain);
    end += part.text.size();
    while (at < end) {
      const bool markup = part.special == SpecialText::kAsControl;
      Vocabulary::Added added =
          vocabulary_.added_at(markup ? text.substr(at, end - at) : text.substr(at), part.special);
      if (added.id == kNoToken) {
        ++at;
        continue;
      }
      encode_text(text.substr(plain, at - plain), out);
      out.push_back(added.id);
      at += added.length;
      plain = at;
    }
  }
  encode_text(text.substr(plain), out);
  return out;
}

void BpeTokenizer::encode_text(std::string_view utf8, std::vector<TokenId>& out) const {
  while (!utf8.empty()) {
    const std::size_t valid = valid_utf8_prefix(utf8);
    encode_pieces(utf8.substr(0, valid), out);
    utf8.remove_prefix(valid);
    if (utf8.empty()) return;
    const std::size_t bad = utf8_front(utf8).length;
    bpe_.encode(utf8.substr(0, bad), out);
    utf8.remove_prefix(bad);
  }
}

void BpeTokenizer::encode_pieces(std::string_view valid, std::vector<TokenId>& out) const {
  PreTokenizer::Pieces pieces(pre_, valid);
  for (std::string_view piece; pieces.next(piece);) {
    const TokenId id = vocabulary_.plain(piece);
    if (id != kNoToken && whole_[static_cast<std::size_t>(id)]) {
      out.push_back(id);
    } else {
      bpe_.encode(piece, out);
    }
  }
}

}  // namespace kvfs::text

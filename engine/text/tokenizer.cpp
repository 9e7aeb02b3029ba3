#include "engine/text/tokenizer.h"

#include <algorithm>

#include "engine/text/readers.h"

namespace kvfs::text {

std::vector<Stretch> Tokenizer::stretches(std::span<const TextPart> parts) const {
  std::size_t size = 0;
  for (const TextPart& part : parts) size += part.text.size();
  if (size == 0) return {};
  return {{.control = -1, .begin = 0, .end = size}};
}

std::vector<TokenId> Tokenizer::encode_parts(std::span<const TextPart> parts, Before) const {
  std::vector<TokenId> ids;
  for (const TextPart& part : parts) {
    const std::vector<TokenId> more = encode(part.text, part.special);
    ids.insert(ids.end(), more.begin(), more.end());
  }
  return ids;
}

Status keep_rows(TokenizerSpec& spec, std::int32_t rows, const std::string& field) {
  std::vector<TokenId> needed = {spec.unknown};
  needed.insert(needed.end(), spec.begin.begin(), spec.begin.end());
  needed.insert(needed.end(), spec.end.begin(), spec.end.end());
  for (std::size_t at = static_cast<std::size_t>(rows); at < spec.tokens.size(); ++at) {
    const SpelledToken& token = spec.tokens[at];
    const bool added = token.kind == TokenKind::kControl || token.kind == TokenKind::kUserDefined;
    if (token.kind != TokenKind::kUnused && (!added || token.mergeable)) {
      needed.push_back(static_cast<TokenId>(at));
    }
  }
  for (const TokenId id : needed) {
    if (id < rows) continue;
    const auto at = static_cast<std::size_t>(id);
    const std::string text = at < spec.tokens.size() ? spec.tokens[at].text.substr(0, 40) : "";
    return fail(ErrorCode::kInvalid, field,
                "\"" + text + "\" has id " + std::to_string(id) + ", the model's embedding has " +
                    std::to_string(rows) + " rows",
                "fetch the tokenizer and the weights of one model");
  }
  if (spec.tokens.size() > static_cast<std::size_t>(rows))
    spec.tokens.resize(static_cast<std::size_t>(rows));
  std::erase_if(spec.rules, [&](const auto& rule) { return rule.first >= rows; });
  spec.size = std::min(spec.size, rows);
  return {};
}

Result<std::unique_ptr<Tokenizer>> load_tokenizer(const container::GgufFile& file,
                                                  std::int32_t rows) {
  const std::string field = file.path().string() + ": tokenizer.ggml.tokens";
  KVFS_ASSIGN(TokenizerSpec spec, read_gguf_tokenizer(file));
  KVFS_TRY(keep_rows(spec, rows, field));
  auto built = Pipeline::build(std::move(spec));
  if (!built) built.error().what = field;
  return built;
}

}  // namespace kvfs::text

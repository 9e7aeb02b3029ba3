#include "engine/text/tokenizer.h"

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

Result<std::unique_ptr<Tokenizer>> load_tokenizer(const container::GgufFile& file) {
  KVFS_ASSIGN(TokenizerSpec spec, read_gguf_tokenizer(file));
  auto built = Pipeline::build(std::move(spec));
  if (!built) built.error().what = file.path().string() + ": tokenizer.ggml.tokens";
  return built;
}

}  // namespace kvfs::text

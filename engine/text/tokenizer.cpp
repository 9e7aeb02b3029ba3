#include "engine/text/tokenizer.h"

#include "engine/text/bpe_tokenizer.h"

namespace kvfs::text {

std::vector<TokenId> Tokenizer::encode_parts(std::span<const TextPart> parts) const {
  std::vector<TokenId> ids;
  for (const TextPart& part : parts) {
    const std::vector<TokenId> more = encode(part.text, part.special);
    ids.insert(ids.end(), more.begin(), more.end());
  }
  return ids;
}

Result<std::unique_ptr<Tokenizer>> load_tokenizer(const container::GgufFile& file) {
  constexpr const char* kModel = "tokenizer.ggml.model";
  KVFS_ASSIGN(const std::string model, file.string_at(kModel));
  if (model == "gpt2") return BpeTokenizer::load(file);
  return fail(ErrorCode::kUnsupported, file.path().string() + ": " + kModel,
              "the tokenizer \"" + model + "\" is not known",
              "use a model whose tokenizer is gpt2 (byte-level BPE)");
}

}  // namespace kvfs::text

#include "engine/text/tokenizer.h"

#include "engine/text/bpe_tokenizer.h"

namespace kvfs::text {

Result<std::unique_ptr<Tokenizer>> load_tokenizer(const container::GgufFile& file) {
  constexpr const char* kModel = "tokenizer.ggml.model";
  KVFS_ASSIGN(const std::string model, file.string_at(kModel));
  if (model == "gpt2") return BpeTokenizer::load(file);
  return fail(ErrorCode::kUnsupported, file.path().string() + ": " + kModel,
              "the tokenizer \"" + model + "\" is not known",
              "use a model whose tokenizer is gpt2 (byte-level BPE)");
}

}  // namespace kvfs::text

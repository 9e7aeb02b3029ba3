// tokenizer.json and tokenizer.model: whatever the bytes say, they are refused or they tokenize.
#include <cstdint>
#include <string_view>

#include "engine/text/readers.h"

using namespace kvfs::text;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  auto spec = data[0] % 4 == 0 ? read_sentencepiece(bytes, "tokenizer.model")
                               : read_json_tokenizer(bytes, "tokenizer.json");
  if (!spec) return 0;
  const auto built = Pipeline::build(*std::move(spec));
  if (!built) return 0;
  const Tokenizer& tokenizer = **built;
  const std::string_view text = bytes.substr(bytes.size() / 2).substr(0, 400);
  for (const auto special : {SpecialText::kAsText, SpecialText::kAsControl}) {
    for (const kvfs::TokenId id : tokenizer.encode(text, special)) {
      if (id < 0 || id >= tokenizer.vocab_size()) __builtin_trap();
    }
  }
  return 0;
}

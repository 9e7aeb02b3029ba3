// GGUF files: whatever the bytes say, they are refused, or directory, tokenizer, template and
// architecture can be used. The first four bytes are the number of bytes, all zero, that follow the
// others: weights.
#include <cstring>

#include "engine/model/families/family.h"
#include "engine/text/chat_template.h"
#include "tests/fuzz/architecture_use.h"
#include "tests/fuzz/file_of_bytes.h"

using namespace kvfs;

namespace {

void use_text(const container::GgufFile& file) {
  const auto tokenizer = text::load_tokenizer(file);
  if (!tokenizer) return;
  const std::string_view words = "One day, 3 ships\n\tsailed — \xE4\xBB\x8A <s></s><|im_end|>";
  for (const TokenId id : (*tokenizer)->encode(words, text::SpecialText::kAsControl)) {
    if (id < 0 || id >= (*tokenizer)->vocab_size()) __builtin_trap();
  }
  const auto chat = text::load_chat_template(file, **tokenizer);
  if (chat) (*chat)->prompt({}, words);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::uint32_t zeros = 0;
  if (size < sizeof zeros) return 0;
  std::memcpy(&zeros, data, sizeof zeros);
  fuzz::write_file("model.gguf",
                   {reinterpret_cast<const char*>(data) + sizeof zeros, size - sizeof zeros},
                   zeros);
  const auto file = container::GgufFile::open(fuzz::folder() / "model.gguf");
  if (!file) return 0;
  const ByteSpan all = (*file)->file_bytes();
  for (const container::GgufTensor& tensor : (*file)->tensors()) {
    const bool inside = tensor.bytes.data() >= all.data() &&
                        tensor.bytes.data() + tensor.bytes.size() <= all.data() + all.size();
    if (!inside) __builtin_trap();
  }
  use_text(**file);
  const auto checkpoint = model::Checkpoint::open(fuzz::folder() / "model.gguf");
  if (!checkpoint) return 0;
  const auto architecture = model::read_architecture(**checkpoint);
  if (architecture) fuzz::check(*architecture);
  return 0;
}

// The formats that tokenizers come in, each read into a TokenizerSpec.
//
// Errors name the file, the field and the reason: kUnsupported for what is understood but not had
// (a component's JSON path, a model's name), kInvalid for what contradicts itself. Nothing is
// allocated that the file's size does not justify.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "codec/container/gguf.h"
#include "engine/text/pipeline.h"

namespace kvfs::text {

// tokenizer.ggml.*: byte-level BPE (gpt2), sentencepiece's BPE (llama) and unigram (t5).
Result<TokenizerSpec> read_gguf_tokenizer(const container::GgufFile& file);

// Hugging Face's tokenizer.json; `where` is its path, for messages.
Result<TokenizerSpec> read_json_tokenizer(std::string_view json, const std::string& where);

// sentencepiece's tokenizer.model, a protocol buffer (sentencepiece_model.proto).
Result<TokenizerSpec> read_sentencepiece(std::string_view bytes, const std::string& where);

// Leaves out added tokens whose id is `rows` or more, as load_tokenizer promises; `field` is the
// path and field of the tokens, for messages.
Status keep_rows(TokenizerSpec& spec, std::int32_t rows, const std::string& field);

// A regular file's bytes; kTooLarge above `most`.
Result<std::string> read_text_file(const std::filesystem::path& path, std::size_t most);

// What every sentencepiece reader does with spaces.
void add_sentencepiece_steps(bool collapses, bool adds_prefix, bool first_only, Normalizer& out);

}  // namespace kvfs::text

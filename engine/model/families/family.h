// The families of models known here: one small file each, which reads fields and tensor names into
// an Architecture. How to add one: docs/FAMILIES.md.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "engine/model/architecture.h"

namespace kvfs::model {

class Reader;

struct Family {
  std::string_view model_type;    // config.json's; empty: GGUF only
  std::string_view gguf;          // general.architecture; empty: Hugging Face only
  std::string_view transformers;  // the class that runs it there
  Result<Architecture> (*read)(Reader& reader);
};

std::span<const Family> families();
// Null when unknown.
const Family* find_family(const Checkpoint& checkpoint);

// kUnsupported: an unknown family (known ones are listed), a feature or a kind of weights that is
// not implemented, naming the field; kNotFound, kInvalid, kCorrupt: a field or tensor is missing,
// out of range or of another shape.
Result<Architecture> read_architecture(const Checkpoint& checkpoint);

// The readers, each in the file of its name.
Result<Architecture> read_llama(Reader& reader);
Result<Architecture> read_mistral(Reader& reader);
Result<Architecture> read_mixtral(Reader& reader);
Result<Architecture> read_smollm3(Reader& reader);
Result<Architecture> read_qwen2(Reader& reader);
Result<Architecture> read_qwen3(Reader& reader);
Result<Architecture> read_qwen3_moe(Reader& reader);
Result<Architecture> read_phi3(Reader& reader);
Result<Architecture> read_gemma2(Reader& reader);
Result<Architecture> read_gemma3(Reader& reader);
Result<Architecture> read_gpt2(Reader& reader);
Result<Architecture> read_gpt_neox(Reader& reader);
Result<Architecture> read_olmo2(Reader& reader);
Result<Architecture> read_lfm2(Reader& reader);

}  // namespace kvfs::model

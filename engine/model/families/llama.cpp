// Llama 1, 2, 3.x and SmolLM2. A GGUF calls Mistral and Mixtral llama, too.
#include "engine/model/families/family.h"
#include "engine/model/families/llama_like.h"

namespace kvfs::model {

Result<Architecture> read_llama(Reader& reader) {
  if (reader.is_gguf() && reader.fields().has({nullptr, "expert_count"}))
    return read_mixtral(reader);
  return read_llama_like(reader, {.permuted = true});
}

}  // namespace kvfs::model

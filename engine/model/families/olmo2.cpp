// OLMo 2: norms after attention and feed-forward instead of before, Q and K normalised over all
// heads.
#include "engine/model/families/family.h"
#include "engine/model/families/llama_like.h"

namespace kvfs::model {

Result<Architecture> read_olmo2(Reader& reader) {
  return read_llama_like(reader,
                         {.norms = LlamaLike::Norms::kAfter, .qk_norm = LlamaLike::QkNorm::kRow});
}

}  // namespace kvfs::model

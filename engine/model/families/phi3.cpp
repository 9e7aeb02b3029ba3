// Phi-3, 3.5 and Phi-4-mini: a llama with fused projections, LongRoPE and a window.
#include "engine/model/families/family.h"
#include "engine/model/families/llama_like.h"

namespace kvfs::model {

Result<Architecture> read_phi3(Reader& reader) {
  KVFS_ASSIGN(Architecture a, read_llama_like(reader, {.fused = true}));
  KVFS_TRY(read_window(reader, a, {"sliding_window", "attention.sliding_window"}));
  return a;
}

}  // namespace kvfs::model

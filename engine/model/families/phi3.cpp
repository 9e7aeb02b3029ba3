// Phi-3, 3.5 and Phi-4-mini: a llama with fused projections, LongRoPE and a window.
#include "engine/model/families/family.h"
#include "engine/model/families/llama_like.h"

namespace kvfs::model {

Result<Architecture> read_phi3(Reader& reader) {
  KVFS_ASSIGN(Architecture a, read_llama_like(reader, {.fused = true}));
  const Key window{"sliding_window", "attention.sliding_window"};
  if (reader.fields().has(window)) {
    KVFS_ASSIGN(const int keys, reader.fields().count(window));
    KVFS_TRY(set_windows(reader, a, keys, [](int) { return true; }));
  }
  return a;
}

}  // namespace kvfs::model

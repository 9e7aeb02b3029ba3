// Mistral: a llama whose layers look back over a window only (the first ones; later models have
// none).
#include "engine/model/families/family.h"
#include "engine/model/families/llama_like.h"

namespace kvfs::model {

Result<Architecture> read_mistral(Reader& reader) {
  KVFS_ASSIGN(Architecture a, read_llama_like(reader, {}));
  KVFS_TRY(read_window(reader, a, {"sliding_window", nullptr}));
  return a;
}

}  // namespace kvfs::model

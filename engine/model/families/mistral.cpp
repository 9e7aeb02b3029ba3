// Mistral: a llama whose layers look back over a window only (the first ones; later models have
// none).
#include "engine/model/families/family.h"
#include "engine/model/families/llama_like.h"

namespace kvfs::model {

Result<Architecture> read_mistral(Reader& reader) {
  KVFS_ASSIGN(Architecture a, read_llama_like(reader, {}));
  const Key window{"sliding_window", nullptr};
  if (reader.fields().has(window)) {
    KVFS_ASSIGN(const int keys, reader.fields().count(window));
    KVFS_TRY(set_windows(reader, a, keys, [](int) { return true; }));
  }
  return a;
}

}  // namespace kvfs::model

// SmolLM3: a llama in which every fourth layer turns nothing (NoPE).
#include "engine/model/families/family.h"
#include "engine/model/families/llama_like.h"

namespace kvfs::model {

Result<Architecture> read_smollm3(Reader& reader) {
  KVFS_ASSIGN(Architecture a, read_llama_like(reader, {.permuted = true}));
  const Key listed{"no_rope_layers", nullptr};  // 1 where there is RoPE, whatever the name says
  std::vector<double> turns;
  if (reader.fields().has(listed)) {
    KVFS_ASSIGN(turns, reader.fields().reals(listed, 0.0, 1.0));
    if (turns.size() != a.layers.size()) {
      return reader.fields().refuse(ErrorCode::kInvalid, listed,
                                    "has " + std::to_string(turns.size()) + " layers, wanted " +
                                        std::to_string(a.layers.size()));
    }
  }
  KVFS_ASSIGN(const int interval, reader.fields().count_or({"no_rope_layer_interval", nullptr}, 4));
  for (std::size_t i = 0; i < a.layers.size(); ++i) {
    const bool turned =
        turns.empty() ? (i + 1) % static_cast<std::size_t>(interval) != 0 : turns[i] != 0.0;
    if (!turned) a.layers[i].rope.reset();
  }
  KVFS_ASSIGN(const bool sliding, reader.fields().flag_or({"use_sliding_window", nullptr}, false));
  if (sliding) {
    KVFS_ASSIGN(const int window, reader.fields().count({"sliding_window", nullptr}));
    KVFS_TRY(set_windows(reader, a, window, [](int) { return false; }));
  }
  return a;
}

}  // namespace kvfs::model

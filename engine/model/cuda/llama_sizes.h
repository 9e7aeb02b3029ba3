// The sizes of an architecture that these kernels know: a plain llama.
#pragma once

namespace kvfs::model::cuda {

struct LlamaSizes {
  int layers = 0;
  int width = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_width = 0;
  int ffn_width = 0;
  int vocab = 0;
  int context = 0;
  float rms_epsilon = 0.0F;
};

}  // namespace kvfs::model::cuda

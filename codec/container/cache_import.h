// A KV cache out of the files that users of transformers make: torch.save (zip or stream), pickle,
// either one gzipped, and NumPy's .npz. Found are: a tuple or list of (key, value) a layer, also as
// this project's .pt bundle has it; a DynamicCache of transformers 4.44 (key_cache, value_cache) or
// 5 (layers with keys, values); a dict that holds one of these under `kv`, `past_key_values` or
// `cache`, beside `input_ids` and `positions` where it has them. In an .npz the arrays are key_N
// and value_N a layer (keys_N, k_N, layer_N_key … too), or `k` and `v` (key, keys, …) of all
// layers, [layers, …]. What a dict has under `state`, or a .safetensors file as metadata, of texts by
// name comes along as it is.
//
// Tensors are [1, heads, T, width] or [heads, T, width]. What is found is checked as a whole: batch
// 1, one dtype, the same heads and widths in each layer, the same T unless positions are given by
// layer, ids and positions as many as tensors say.
//
// Tensors refer to the file, which must outlive this object, or to what it keeps (inflated, or made
// contiguous). Immutable once read, any thread. Errors: those of TorchFile and gunzip; kInvalid
// with the layer and the field.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "codec/container/tensor_view.h"

namespace kvfs::container {

class TorchFile;
class ZipFile;

struct ImportedLayer {
  TensorView key;    // [heads, T, width]
  TensorView value;  // [heads, T, width], of the same dtype
};

struct ImportedCache {
  std::vector<ImportedLayer> layers;
  std::vector<std::int32_t> tokens;  // of the positions from 0 on, −1 where the file has no ids
  std::vector<std::int32_t> unread;  // ids after the last position: the model has not read them yet
  std::vector<std::vector<std::int32_t>>
      positions;  // one list for all layers, or one a layer: of T, or of each head's T in a row
                  // where heads hold positions of their own; ascending in each
  std::map<std::string, std::string> state;  // what the file says of it

  const std::vector<std::int32_t>& positions_of(std::size_t layer) const {
    return positions[positions.size() == 1 ? 0 : layer];
  }
};

class CacheImport {
 public:
  // most_bytes: what a gzip file may inflate to.
  static Result<std::unique_ptr<CacheImport>> read(ByteSpan file, std::uint64_t most_bytes);
  ~CacheImport();

  const ImportedCache& cache() const { return cache_; }
  ByteSpan file() const { return file_; }  // what it was read of: inflated, where it was gzipped

 private:
  CacheImport();
  ByteSpan file_;
  Bytes inflated_;
  std::unique_ptr<TorchFile> torch_;
  std::unique_ptr<ZipFile> zip_;
  ImportedCache cache_;
};

}  // namespace kvfs::container

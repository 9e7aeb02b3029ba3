// What the readers of the several files find of a cache, before it is checked as a whole. Part of
// cache_import.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "codec/base/result.h"
#include "codec/container/cache_import.h"

namespace kvfs::container {

struct CacheParts {
  std::vector<ImportedLayer> layers;  // [1, heads, T, width] or [heads, T, width]
  std::optional<std::vector<std::int64_t>> ids;
  std::optional<std::vector<std::vector<std::int64_t>>> positions;  // one, or one a layer
  std::map<std::string, std::string> state;
};

inline constexpr std::size_t kMostLayers = 4096;

inline tl::unexpected<Error> refuse_cache(std::string what, std::string why, std::string way_out) {
  return fail(ErrorCode::kInvalid, std::move(what), std::move(why), std::move(way_out));
}

Result<CacheParts> cache_in_tree(TorchFile& file);
Result<CacheParts> cache_in_npz(ZipFile& zip);
bool is_safetensors(ByteSpan file);
Result<CacheParts> cache_in_safetensors(ByteSpan file);
Result<ImportedCache> checked_cache(CacheParts parts);

// A tensor of int32 or int64, [n] or [1, n]; with rows [m, n] too, one row after the other.
Result<std::vector<std::int64_t>> whole_numbers(const TensorView& tensor, const std::string& what,
                                                bool rows = false);

}  // namespace kvfs::container

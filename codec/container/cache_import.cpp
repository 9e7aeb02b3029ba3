#include "codec/container/cache_import.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "codec/container/cache_parts.h"
#include "codec/container/gzip.h"
#include "codec/container/torch_file.h"
#include "codec/container/zip_file.h"

namespace kvfs::container {
namespace {

constexpr std::int64_t kMostPositions = 1 << 24;  // without ids to show for them

std::string text_of(const std::vector<std::uint64_t>& shape) {
  std::string out = "[";
  for (const std::uint64_t dim : shape) out += (out.size() > 1 ? ", " : "") + std::to_string(dim);
  return out + "]";
}

tl::unexpected<Error> refuse(std::string what, std::string why, std::string way_out) {
  return refuse_cache(std::move(what), std::move(why), std::move(way_out));
}

// Drops the batch.
Status check_tensor(TensorView& tensor, const std::string& what, bool may_be_empty) {
  std::vector<std::uint64_t>& shape = tensor.shape;
  if (shape.size() == 4 && shape[0] != 1) {
    return refuse(what, "a batch of " + std::to_string(shape[0]) + ", " + text_of(shape),
                  "save one sequence a file: cache[i:i+1]");
  }
  if (shape.size() == 4) shape.erase(shape.begin());
  if (shape.size() != 3) {
    return refuse(what, "its shape is " + text_of(shape), "it has to be [1, heads, tokens, width]");
  }
  const bool empty = shape[0] == 0 || shape[2] == 0 || (shape[1] == 0 && !may_be_empty);
  if (empty) {
    return refuse(what, "it is empty, " + text_of(shape), "save a cache that has read something");
  }
  if (tensor.dtype != DType::kF32 && tensor.dtype != DType::kF16 && tensor.dtype != DType::kBF16) {
    return refuse(what, "it is of " + std::string(name_of(tensor.dtype)),
                  "save it as float32, float16 or bfloat16");
  }
  return {};
}

Status check_layers(std::vector<ImportedLayer>& layers, bool lengths_may_differ) {
  if (layers.empty()) return refuse("cache", "no layers", "save a cache that has read something");
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const std::string what = "layer " + std::to_string(i);
    TensorView& key = layers[i].key;
    TensorView& value = layers[i].value;
    KVFS_TRY(check_tensor(key, what + ", key", lengths_may_differ));
    KVFS_TRY(check_tensor(value, what + ", value", lengths_may_differ));
    const TensorView& first_key = layers[0].key;
    const TensorView& first_value = layers[0].value;
    if (key.shape[0] != value.shape[0] || key.shape[1] != value.shape[1]) {
      return refuse(what, "key " + text_of(key.shape) + " and value " + text_of(value.shape),
                    "both need the same heads and tokens");
    }
    if (key.dtype != value.dtype || key.dtype != first_key.dtype) {
      return refuse(what, "not all tensors are of " + std::string(name_of(first_key.dtype)),
                    "save all of them as one type");
    }
    if (key.shape[0] != first_key.shape[0] || key.shape[2] != first_key.shape[2] ||
        value.shape[2] != first_value.shape[2]) {
      return refuse(what,
                    "key " + text_of(key.shape) + ", that of layer 0 " + text_of(first_key.shape),
                    "all layers need the same heads and widths");
    }
    if (key.shape[1] != first_key.shape[1] && !lengths_may_differ) {
      return refuse(what,
                    std::to_string(key.shape[1]) + " tokens, layer 0 has " +
                        std::to_string(first_key.shape[1]),
                    "give positions, a list of one tensor a layer");
    }
  }
  return {};
}

// One list for all layers, or one a layer.
Result<std::vector<std::vector<std::int32_t>>> checked_positions(const CacheParts& parts) {
  std::vector<std::vector<std::int32_t>> out;
  if (!parts.positions) {
    std::vector<std::int32_t>& all = out.emplace_back(parts.layers[0].key.shape[1]);
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int32_t>(i);
    return out;
  }
  if (parts.positions->size() != 1 && parts.positions->size() != parts.layers.size()) {
    return refuse("positions",
                  "of " + std::to_string(parts.positions->size()) + " layers, the cache has " +
                      std::to_string(parts.layers.size()),
                  "one tensor for all layers, or one a layer");
  }
  for (std::size_t i = 0; i < parts.positions->size(); ++i) {
    const std::vector<std::int64_t>& given = (*parts.positions)[i];
    const std::uint64_t heads = parts.layers[i].key.shape[0], length = parts.layers[i].key.shape[1];
    if (given.size() != length && given.size() != heads * length) {
      return refuse("positions",
                    std::to_string(given.size()) + " for " + std::to_string(length) +
                        " tokens of layer " + std::to_string(i),
                    "one for each token of the tensors, or of each head");
    }
    std::vector<std::int32_t>& checked = out.emplace_back();
    std::int64_t last = -1;
    for (const std::int64_t position : given) {
      if (checked.size() % length == 0) last = -1;  // the next head
      if (position <= last || position >= std::numeric_limits<std::int32_t>::max()) {
        return refuse("positions",
                      std::to_string(position) + " comes after " + std::to_string(last),
                      "they have to ascend from 0 or more");
      }
      checked.push_back(static_cast<std::int32_t>(last = position));
    }
  }
  return out;
}

Status take_ids(const CacheParts& parts, ImportedCache& cache) {
  std::int64_t count = 0;  // positions known of
  for (const auto& positions : cache.positions) {
    for (const std::int32_t position : positions) {
      count = std::max(count, position + std::int64_t{1});
    }
  }
  // Of a pruned state that kept none of the last ones.
  const auto said = parts.state.find("n_tokens");
  if (parts.ids && said != parts.state.end() && said->second == std::to_string(parts.ids->size())) {
    count = std::max(count, std::ssize(*parts.ids));
  }
  if (!parts.ids) {
    if (count > kMostPositions && parts.positions) {
      return fail(ErrorCode::kTooLarge, "positions", "the last is " + std::to_string(count - 1),
                  "save input_ids beside them");
    }
    cache.tokens.assign(static_cast<std::size_t>(count), -1);
    return {};
  }
  if (std::ssize(*parts.ids) < count) {
    return refuse("input_ids",
                  std::to_string(parts.ids->size()) + " ids, the cache has " +
                      std::to_string(count) + " positions",
                  "save the ids of all that the cache has read, or none");
  }
  for (const std::int64_t id : *parts.ids) {
    if (id < -1 || id > std::numeric_limits<std::int32_t>::max()) {
      return refuse("input_ids", std::to_string(id) + " is no token",
                    "ids are 0 or more, −1 is unknown");
    }
    auto& to = std::ssize(cache.tokens) < count ? cache.tokens : cache.unread;
    to.push_back(static_cast<std::int32_t>(id));
  }
  return {};
}

}  // namespace

Result<std::vector<std::int64_t>> whole_numbers(const TensorView& tensor, const std::string& what,
                                                bool rows) {
  const std::vector<std::uint64_t>& shape = tensor.shape;
  if (shape.size() == 2 && shape[0] != 1 && !rows) {
    return refuse(what, "a batch of " + std::to_string(shape[0]), "save one sequence a file");
  }
  if (shape.empty() || shape.size() > 2 ||
      (tensor.dtype != DType::kI64 && tensor.dtype != DType::kI32)) {
    return refuse(what, text_of(shape) + " of " + std::string(name_of(tensor.dtype)),
                  "save int64 or int32, [n] or [1, n]");
  }
  const std::size_t width = size_of(tensor.dtype);
  std::vector<std::int64_t> out;
  out.reserve(tensor.bytes.size() / width);
  ByteReader reader(tensor.bytes);
  for (std::size_t i = 0; i < tensor.bytes.size() / width; ++i) {
    out.push_back(width == 8 ? reader.number<std::int64_t>() : reader.number<std::int32_t>());
  }
  return out;
}

Result<ImportedCache> checked_cache(CacheParts parts) {
  const bool by_layer = parts.positions && parts.positions->size() > 1;
  KVFS_TRY(check_layers(parts.layers, by_layer));
  ImportedCache out;
  KVFS_ASSIGN(out.positions, checked_positions(parts));
  KVFS_TRY(take_ids(parts, out));
  out.layers = std::move(parts.layers);
  out.state = std::move(parts.state);
  return out;
}

CacheImport::CacheImport() = default;
CacheImport::~CacheImport() = default;

Result<std::unique_ptr<CacheImport>> CacheImport::read(ByteSpan file, std::uint64_t most_bytes) {
  std::unique_ptr<CacheImport> out(new CacheImport);
  if (is_gzip(file)) {
    KVFS_ASSIGN(out->inflated_, gunzip(file, most_bytes));
    file = out->inflated_;
  }
  out->file_ = file;
  CacheParts parts;
  const auto is_tree = [](const auto& entry) { return entry.first.ends_with("/data.pkl"); };
  if (ZipFile::is_zip(file)) {
    KVFS_ASSIGN(auto zip, ZipFile::open(file));
    if (std::ranges::none_of(zip.entries(), is_tree)) {
      out->zip_ = std::make_unique<ZipFile>(std::move(zip));
      KVFS_ASSIGN(parts, cache_in_npz(*out->zip_));
      KVFS_ASSIGN(out->cache_, checked_cache(std::move(parts)));
      return out;
    }
  }
  if (is_safetensors(file)) {
    KVFS_ASSIGN(parts, cache_in_safetensors(file));
    KVFS_ASSIGN(out->cache_, checked_cache(std::move(parts)));
    return out;
  }
  KVFS_ASSIGN(out->torch_, TorchFile::open(file));
  KVFS_ASSIGN(parts, cache_in_tree(*out->torch_));
  KVFS_ASSIGN(out->cache_, checked_cache(std::move(parts)));
  return out;
}

}  // namespace kvfs::container

#include "engine/sched/bundle_source.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "codec/container/state_bundle.h"
#include "engine/store/bundle_files.h"

namespace kvfs::sched {
namespace {

using container::ImportedCache;

constexpr std::uint64_t kMostInflated = std::uint64_t{1} << 36;

std::string shape_text(const std::vector<LayerShape>& layers) {
  const LayerShape& first = layers.front();
  return std::to_string(layers.size()) + " layers of " + std::to_string(first.kv_heads) +
         " heads, keys " + std::to_string(first.key_width) + " and values " +
         std::to_string(first.value_width) + " wide";
}

std::vector<LayerShape> shapes_of(const ImportedCache& cache) {
  std::vector<LayerShape> out;
  for (const container::ImportedLayer& layer : cache.layers) {
    const auto small = [](std::uint64_t n) {
      return static_cast<std::uint16_t>(std::min<std::uint64_t>(n, UINT16_MAX));
    };
    out.push_back({.kv_heads = small(layer.key.shape[0]),
                   .key_width = small(layer.key.shape[2]),
                   .value_width = small(layer.value.shape[2])});
  }
  return out;
}

Result<std::optional<store::StateDocument>> document_of(const store::BundleFacts& facts) {
  auto document = store::parse_bundle_facts(facts);
  if (document) return std::optional(*std::move(document));
  if (document.error().code == ErrorCode::kNotFound) return std::optional<store::StateDocument>();
  return fail(document.error());
}

// `file`: inflated, where it was gzipped.
bool is_untouched(const ImportedCache& cache, DType dtype, ByteSpan file) {
  container::BundleSpec spec{.dtype = dtype,
                             .layers = {},
                             .tokens = cache.tokens,
                             .positions = cache.positions,
                             .state = cache.state};
  for (const container::ImportedLayer& layer : cache.layers) {
    spec.layers.push_back(
        {layer.key.shape[0], layer.key.shape[1], layer.key.shape[2], layer.value.shape[2]});
  }
  using container::BundleForm;
  return std::ranges::any_of(std::array{BundleForm::kPt, BundleForm::kPkl, BundleForm::kNpz},
                             [&](BundleForm form) {
                               const auto bundle = container::StateBundle::make(spec, form);
                               return bundle && bundle->frames(file);
                             });
}

Result<Bundle> read_cache(ByteSpan file) {
  Bundle bundle;
  KVFS_ASSIGN(bundle.cache, container::CacheImport::read(file, kMostInflated));
  const ImportedCache& cache = bundle.cache->cache();
  KVFS_ASSIGN(bundle.document, document_of(cache.state));
  bundle.untouched = bundle.document &&
                     is_untouched(cache, bundle.document->version.kv_dtype, bundle.cache->file());
  return bundle;
}

}  // namespace

Result<Bundle> read_bundle(Catalog& catalog, ByteSpan file) {
  if (file.size() < 9 || file[8] != '{') return read_cache(file);
  KVFS_ASSIGN(auto header, container::parse_safetensors_header(file, file.size()));
  KVFS_ASSIGN(auto document, document_of(header.metadata));
  if (!document) return read_cache(file);
  // In another type than the model here has its layers are read as a cache's and converted.
  const store::VersionRecord& version = document->version;
  const auto card = catalog.card(version.model);
  const bool here = card && (*card)->info.fingerprint == version.fingerprint;
  if (here && (*card)->info.kv_dtype != version.kv_dtype) return read_cache(file);
  Bundle bundle;
  bundle.document = std::move(document);
  auto again = header;
  const Bytes front = container::make_safetensors_header(again);
  bundle.untouched = store::has_bundle_order(header) && front.size() <= file.size() &&
                     std::ranges::equal(front, file.first(front.size()));
  bundle.safetensors = std::move(header);
  return bundle;
}

bool fits(const ImportedCache& cache, const model::ModelInfo& model) {
  return std::ranges::equal(
      shapes_of(cache), model.layers, [](const LayerShape& a, const LayerShape& b) {
        return b.kind != LayerKind::kConvolution && a.kv_heads == b.kv_heads &&
               a.key_width == b.key_width && a.value_width == b.value_width;
      });
}

Status check_fits(const ImportedCache& cache, const model::ModelInfo& model) {
  if (!fits(cache, model)) {
    const bool convolutions = std::ranges::find(model.layers, LayerKind::kConvolution,
                                                &LayerShape::kind) != model.layers.end();
    return fail(ErrorCode::kInvalid, "cache",
                "model " + model.name + " has " + shape_text(model.layers) +
                    (convolutions ? ", and convolutions, which no such file holds" : "") +
                    "; the file has " + shape_text(shapes_of(cache)),
                "set the state's params/model to the model that made it, before the import");
  }
  for (const auto* ids : {&cache.tokens, &cache.unread}) {
    const auto most = std::ranges::max_element(*ids);
    if (most == ids->end() || *most < model.vocab_size) continue;
    return fail(ErrorCode::kInvalid, "input_ids",
                "token " + std::to_string(*most) + " is not in the vocabulary of " + model.name +
                    ", which has " + std::to_string(model.vocab_size),
                "save the ids of the model that made the cache");
  }
  return {};
}

bool agrees(const store::StateDocument& document, const ImportedCache& cache) {
  const store::VersionRecord& version = document.version;
  // NumPy has no bfloat16: an .npz carries it as float32.
  const DType dtype = cache.layers[0].key.dtype;
  const bool same_type =
      version.kv_dtype == dtype || (version.kv_dtype == DType::kBF16 && dtype == DType::kF32);
  if (version.n_tokens != cache.tokens.size() || version.layers.size() != cache.layers.size() ||
      !same_type || !cache.unread.empty()) {
    return false;
  }
  const std::vector<LayerShape> shapes = shapes_of(cache);
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    const LayerShape& shape = version.layers[i];
    const bool same = shape.kv_heads == shapes[i].kv_heads &&
                      shape.key_width == shapes[i].key_width &&
                      shape.value_width == shapes[i].value_width &&
                      std::ranges::all_of(version.extents[i].lengths, [&](std::uint32_t length) {
                        return length == cache.layers[i].key.shape[1];
                      });
    if (!same) return false;
  }
  return true;
}

Result<std::vector<TokenId>> bundled_tokens(const container::SafetensorsHeader& header,
                                            ByteSpan file) {
  const auto ids = std::ranges::find(header.tensors, "input_ids", &container::TensorEntry::name);
  if (ids == header.tensors.end() || ids->dtype != DType::kI64) {
    return fail(ErrorCode::kInvalid, "input_ids", "the file has no int64 tensor of that name",
                "save it again with its tokens");
  }
  ByteReader reader(file.subspan(header.data_offset + ids->begin, ids->end - ids->begin));
  std::vector<TokenId> out;
  while (!reader.at_end()) {
    const auto id = reader.number<std::int64_t>();
    if (id < -1 || id > INT32_MAX) {
      return fail(ErrorCode::kInvalid, "input_ids", std::to_string(id) + " is no token");
    }
    out.push_back(static_cast<TokenId>(id));
  }
  return out;
}

}  // namespace kvfs::sched

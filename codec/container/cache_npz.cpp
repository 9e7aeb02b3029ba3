// Caches in NumPy's .npz.
#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <map>
#include <utility>

#include "codec/container/cache_parts.h"
#include "codec/container/npy.h"
#include "codec/container/quote.h"
#include "codec/container/zip_file.h"

namespace kvfs::container {
namespace {

constexpr std::string_view kSuffix = ".npy";
constexpr char kWayOut[] =
    "name the arrays key_0, value_0, key_1, … or k and v of all layers, and input_ids";

tl::unexpected<Error> refuse(std::string what, std::string why) {
  return refuse_cache(std::move(what), std::move(why), kWayOut);
}

Result<TensorView> array_of(ZipFile& zip, const std::string& entry) {
  KVFS_ASSIGN(const ByteSpan bytes, zip.bytes_of(entry));
  auto header = parse_npy_header(bytes, bytes.size());
  if (!header) {
    Error error = std::move(header).error();
    error.what = in_quotes(entry) + ", " + error.what;
    return fail(std::move(error));
  }
  return TensorView{header->dtype, header->shape, bytes.subspan(header->data_offset)};
}

// "key_12", "layer_12_value", "past_key_values.12.k": which half of which layer, if any.
struct ArrayName {
  enum class Half { kNone, kKey, kValue } half = Half::kNone;
  std::optional<std::size_t> layer;
};

ArrayName array_name(std::string_view name) {
  for (const std::string_view prefix : {"past_key_values", "kv", "cache"}) {
    if (name.starts_with(prefix)) name.remove_prefix(prefix.size());
  }
  ArrayName out;
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  const auto is_letter = [](char c) { return c >= 'a' && c <= 'z'; };
  for (std::size_t at = 0; at < name.size();) {
    const std::string_view rest = name.substr(at);
    std::size_t length = 1;
    if (is_digit(rest[0])) {
      std::size_t layer = 0;
      const auto [end, problem] = std::from_chars(rest.data(), rest.data() + rest.size(), layer);
      if (problem != std::errc{} || out.layer) return {};
      out.layer = layer;
      length = static_cast<std::size_t>(end - rest.data());
    } else if (is_letter(rest[0])) {
      length = static_cast<std::size_t>(std::ranges::find_if_not(rest, is_letter) - rest.begin());
      const std::string_view word = rest.substr(0, length);
      const bool key = word == "k" || word == "key" || word == "keys";
      const bool value = word == "v" || word == "value" || word == "values";
      if ((key || value) && out.half != ArrayName::Half::kNone) return {};
      if (key) out.half = ArrayName::Half::kKey;
      if (value) out.half = ArrayName::Half::kValue;
    }
    at += length;
  }
  return out;
}

// What our own say of the state: JSON of texts by name, as uint8. What is none is another's.
void take_state(const TensorView& array, std::map<std::string, std::string>& out) {
  boost::system::error_code error;
  const boost::json::value value = boost::json::parse(as_text(array.bytes), error);
  if (array.dtype != DType::kU8 || error || !value.is_object()) return;
  for (const auto& [key, text] : value.get_object()) {
    if (text.is_string()) out.insert_or_assign(std::string(key), std::string(text.get_string()));
  }
}

// "positions_12" → 12.
std::optional<std::size_t> positions_layer(std::string_view name) {
  constexpr std::string_view kPrefix = "positions_";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  std::size_t layer = 0;
  const auto [end, problem] = std::from_chars(name.data(), name.data() + name.size(), layer);
  if (problem != std::errc{} || end != name.data() + name.size()) return std::nullopt;
  return layer;
}

// [layers, …] as one tensor a layer.
Status split(const TensorView& whole, const std::string& what, bool is_key,
             std::vector<ImportedLayer>& layers) {
  if (whole.shape.size() < 4 || whole.shape[0] == 0 || whole.shape[0] > kMostLayers) {
    return refuse(what, "not [layers, heads, tokens, width]");
  }
  const std::size_t count = whole.shape[0];
  if (layers.empty()) layers.resize(count);
  if (layers.size() != count) return refuse(what, "keys and values differ in their layers");
  const std::size_t size = whole.bytes.size() / count;
  for (std::size_t i = 0; i < count; ++i) {
    TensorView& to = is_key ? layers[i].key : layers[i].value;
    to.dtype = whole.dtype;
    to.shape.assign(whole.shape.begin() + 1, whole.shape.end());
    to.bytes = whole.bytes.subspan(i * size, size);
  }
  return {};
}

struct Halves {
  std::optional<TensorView> key;
  std::optional<TensorView> value;
};

}  // namespace

Result<CacheParts> cache_in_npz(ZipFile& zip) {
  CacheParts parts;
  std::map<std::size_t, Halves> by_layer;
  std::map<std::size_t, std::vector<std::int64_t>> positions;
  Halves all;
  for (const auto& [entry, facts] : zip.entries()) {
    if (!entry.ends_with(kSuffix)) continue;
    const std::string name = entry.substr(0, entry.size() - kSuffix.size());
    const ArrayName parsed = array_name(name);
    const bool is_key = parsed.half == ArrayName::Half::kKey;
    if (name == "input_ids" || name == "positions") {
      KVFS_ASSIGN(const TensorView array, array_of(zip, entry));
      KVFS_ASSIGN(auto numbers, whole_numbers(array, name, name == "positions"));
      if (name == "input_ids") {
        parts.ids = std::move(numbers);
      } else {
        parts.positions.emplace().push_back(std::move(numbers));
      }
    } else if (const auto layer = positions_layer(name)) {
      KVFS_ASSIGN(const TensorView array, array_of(zip, entry));
      KVFS_ASSIGN(positions[*layer], whole_numbers(array, name, true));
    } else if (name == "state") {
      KVFS_ASSIGN(const TensorView array, array_of(zip, entry));
      take_state(array, parts.state);
    } else if (parsed.half != ArrayName::Half::kNone) {
      KVFS_ASSIGN(const TensorView array, array_of(zip, entry));
      Halves& halves = parsed.layer ? by_layer[*parsed.layer] : all;
      std::optional<TensorView>& to = is_key ? halves.key : halves.value;
      if (to) return refuse(in_quotes(name), "another array is the same half of the same layer");
      to = array;
    }
  }
  if (!positions.empty()) {
    if (positions.rbegin()->first + 1 != positions.size()) {
      return refuse("positions", "those of a layer are missing");
    }
    auto& by_number = parts.positions.emplace();
    for (auto& [layer, numbers] : positions) by_number.push_back(std::move(numbers));
  }
  if (all.key && all.value && by_layer.empty()) {
    KVFS_TRY(split(*all.key, "keys", true, parts.layers));
    KVFS_TRY(split(*all.value, "values", false, parts.layers));
    return parts;
  }
  for (auto& [layer, halves] : by_layer) {
    const std::string what = "layer " + std::to_string(layer);
    if (layer != parts.layers.size()) {
      return refuse("layer " + std::to_string(parts.layers.size()), "no arrays of it");
    }
    if (!halves.key || !halves.value) return refuse(what, halves.key ? "no value" : "no key");
    parts.layers.push_back({*std::move(halves.key), *std::move(halves.value)});
  }
  if (parts.layers.empty()) return refuse("npz file", "no arrays of keys and values");
  return parts;
}

}  // namespace kvfs::container

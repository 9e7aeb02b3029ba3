// state.json: its keys in a fixed order, one line each, layers one a line.
#include <boost/json.hpp>
#include <string>

#include "engine/store/assembly.h"
#include "engine/store/block_views.h"

namespace kvfs::store {
namespace {

namespace json = boost::json;

constexpr int kStateFormat = 1;

json::value text_value(std::string_view text) { return json::string(text.data(), text.size()); }

json::object layer_json(const LayerShape& shape, const LayerExtent& extent) {
  json::object layer;
  bool same = true;
  for (std::uint32_t length : extent.lengths) same &= length == extent.lengths.front();
  if (same) {
    layer["length"] = extent.lengths.empty() ? 0 : extent.lengths.front();
  } else {
    json::array& lengths = layer["lengths"].emplace_array();
    for (std::uint32_t length : extent.lengths) lengths.push_back(length);
  }
  if (shape.kind == LayerKind::kConvolution) {
    layer["kind"] = "convolution";
    layer["kept"] = shape.kept;
    layer["channels"] = shape.key_width;
    return layer;
  }
  layer["kv_heads"] = shape.kv_heads;
  layer["key_width"] = shape.key_width;
  layer["value_width"] = shape.value_width;
  return layer;
}

Result<json::object> origin_json(const VersionRecord& version) {
  json::object origin;
  origin["kind"] = text_value(name_of(version.origin));
  if (version.origin_detail.empty()) return origin;
  boost::system::error_code error;
  const json::value detail = json::parse(version.origin_detail, error);
  if (error || !detail.is_object()) {
    return fail(ErrorCode::kCorrupt, "the origin of a version", "it is not a JSON object");
  }
  for (const auto& [key, value] : detail.get_object()) origin[key] = value;
  return origin;
}

// --- and back -----------------------------------------------------------------------------------

tl::unexpected<Error> wrong(std::string_view key, const std::string& wanted) {
  return fail(ErrorCode::kInvalid, "state.json", "\"" + std::string(key) + "\" is not " + wanted,
              "copy the file again");
}

Result<std::string> text_at(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  if (value == nullptr || !value->is_string()) return wrong(key, "a string");
  return std::string(value->get_string());
}

Result<std::int64_t> number_at(const json::object& object, std::string_view key, std::int64_t least,
                               std::int64_t most) {
  const json::value* value = object.if_contains(key);
  boost::system::error_code error;
  const std::int64_t number = value == nullptr ? least - 1 : value->to_number<std::int64_t>(error);
  if (value == nullptr || error || number < least || number > most) {
    return wrong(key, "a number from " + std::to_string(least) + " to " + std::to_string(most));
  }
  return number;
}

template <class Digest>
Result<Digest> digest_at(const json::object& object, std::string_view key) {
  KVFS_ASSIGN(const std::string text, text_at(object, key));
  const auto bytes = from_hex(text);
  if (!bytes) return wrong(key, "32 hex digits");
  return Digest{*bytes};
}

constexpr std::int64_t kMost16 = 65535;
constexpr std::int64_t kMostLength = std::int64_t{1} << 31;

Status parse_layer(const json::value& value, VersionRecord& version) {
  if (!value.is_object()) return wrong("layers", "a list of objects");
  const json::object& object = value.get_object();
  LayerShape shape;
  if (object.contains("kind")) {
    shape.kind = LayerKind::kConvolution;
    shape.kv_heads = 1;
    KVFS_ASSIGN(const auto kept, number_at(object, "kept", 1, kBlockTokens));
    KVFS_ASSIGN(const auto channels, number_at(object, "channels", 1, kMost16));
    shape.kept = static_cast<std::uint16_t>(kept);
    shape.key_width = static_cast<std::uint16_t>(channels);
  } else {
    KVFS_ASSIGN(const auto heads, number_at(object, "kv_heads", 1, kMost16));
    KVFS_ASSIGN(const auto key, number_at(object, "key_width", 1, kMost16));
    KVFS_ASSIGN(const auto width, number_at(object, "value_width", 0, kMost16));
    shape.kv_heads = static_cast<std::uint16_t>(heads);
    shape.key_width = static_cast<std::uint16_t>(key);
    shape.value_width = static_cast<std::uint16_t>(width);
  }
  LayerExtent extent;
  if (const json::value* lengths = object.if_contains("lengths")) {
    if (!lengths->is_array() || lengths->get_array().size() != shape.kv_heads) {
      return wrong("lengths", "one number a head");
    }
    for (const json::value& length : lengths->get_array()) {
      json::object one;
      one["length"] = length;
      KVFS_ASSIGN(const auto n, number_at(one, "length", 0, kMostLength));
      extent.lengths.push_back(static_cast<std::uint32_t>(n));
    }
  } else {
    KVFS_ASSIGN(const auto n, number_at(object, "length", 0, kMostLength));
    extent.lengths.assign(shape.kv_heads, static_cast<std::uint32_t>(n));
  }
  version.layers.push_back(shape);
  version.extents.push_back(std::move(extent));
  return {};
}

Status parse_origin(const json::object& object, VersionRecord& version) {
  const json::value* value = object.if_contains("origin");
  if (value == nullptr || !value->is_object()) return wrong("origin", "an object");
  json::object origin = value->get_object();
  KVFS_ASSIGN(const std::string kind, text_at(origin, "kind"));
  for (const Origin known :
       {Origin::kComputed, Origin::kImported, Origin::kEdited, Origin::kPruned, Origin::kLossy}) {
    if (kind != name_of(known)) continue;
    version.origin = known;
    origin.stable_erase("kind");  // the others stay in order
    if (!origin.empty()) version.origin_detail = json::serialize(origin);
    return {};
  }
  return wrong("origin", "of a kind that is known");
}

Result<DType> dtype_at(const json::object& object) {
  KVFS_ASSIGN(const std::string name, text_at(object, "dtype"));
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
    if (name == name_of(dtype)) return dtype;
  }
  return wrong("dtype", "BF16, F16 or F32");
}

}  // namespace

Result<std::unique_ptr<FileView>> state_json_view(Store&, const VersionRecord& version) {
  KVFS_ASSIGN(const json::object origin, origin_json(version));
  std::string text = "{\n";
  const auto line = [&](std::string_view key, const json::value& value) {
    text += "  \"" + std::string(key) + "\": " + json::serialize(value) + ",\n";
  };
  line("format", kStateFormat);
  line("model", text_value(version.model));
  line("fingerprint", text_value(version.fingerprint.hex()));
  line("kernel_class", text_value(version.kernel_class));
  line("n_tokens", version.n_tokens);
  line("next_pos", version.next_pos);
  line("dtype", text_value(name_of(version.kv_dtype)));
  line("codec", text_value(chunk::name_of(version.codec)));
  text += "  \"layers\": [";
  for (std::size_t i = 0; i < version.layers.size(); ++i) {
    text += i == 0 ? "\n    " : ",\n    ";
    text += json::serialize(layer_json(version.layers[i], version.extents[i]));
  }
  text += "\n  ],\n";
  line("origin", origin);
  text += "  \"root\": \"" + version.root.hex() + "\"\n}\n";
  return std::make_unique<MemoryView>(Bytes(text.begin(), text.end()));
}

Result<StateDocument> parse_state_json(std::string_view text) {
  boost::system::error_code error;
  const json::value value = json::parse(text, error);
  if (error || !value.is_object()) {
    return fail(ErrorCode::kInvalid, "state.json", "it is not a JSON object",
                "copy the file again");
  }
  const json::object& object = value.get_object();
  StateDocument document;
  VersionRecord& version = document.version;
  KVFS_TRY(number_at(object, "format", kStateFormat, kStateFormat));
  KVFS_ASSIGN(version.model, text_at(object, "model"));
  KVFS_ASSIGN(version.fingerprint, digest_at<ModelFingerprint>(object, "fingerprint"));
  KVFS_ASSIGN(version.kernel_class, text_at(object, "kernel_class"));
  KVFS_ASSIGN(const auto n_tokens, number_at(object, "n_tokens", 1, kMostLength - 1));
  KVFS_ASSIGN(const auto next_pos, number_at(object, "next_pos", 1, kMostLength - 1));
  version.n_tokens = static_cast<std::uint64_t>(n_tokens);
  version.next_pos = static_cast<Position>(next_pos);
  KVFS_ASSIGN(version.kv_dtype, dtype_at(object));
  KVFS_ASSIGN(const std::string codec, text_at(object, "codec"));
  KVFS_ASSIGN(version.codec, chunk::codec_from_name(codec));
  const json::value* layers = object.if_contains("layers");
  if (layers == nullptr || !layers->is_array() || layers->get_array().empty()) {
    return wrong("layers", "a list");
  }
  for (const json::value& layer : layers->get_array()) KVFS_TRY(parse_layer(layer, version));
  KVFS_TRY(parse_origin(object, version));
  if (object.contains("root")) {
    KVFS_ASSIGN(document.root, digest_at<ContentDigest>(object, "root"));
  } else {
    version.origin = Origin::kEdited;
  }
  return document;
}

}  // namespace kvfs::store

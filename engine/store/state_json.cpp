// state.json: its keys in a fixed order, one line each, layers one a line.
#include <boost/json.hpp>
#include <string>

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

}  // namespace kvfs::store

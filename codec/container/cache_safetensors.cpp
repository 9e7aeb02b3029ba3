// Caches in this project's own bundles: layers.N.key, layers.N.value, input_ids, positions or
// layers.N.positions.
#include <map>
#include <utility>

#include "codec/container/cache_parts.h"
#include "codec/container/safetensors.h"

namespace kvfs::container {
namespace {

tl::unexpected<Error> refuse(std::string what, std::string why) {
  return refuse_cache(std::move(what), std::move(why),
                      "name the tensors layers.0.key, layers.0.value, …, input_ids, positions");
}

}  // namespace

bool is_safetensors(ByteSpan file) { return file.size() > 8 && file[8] == '{'; }

Result<CacheParts> cache_in_safetensors(ByteSpan file) {
  KVFS_ASSIGN(const SafetensorsHeader header, parse_safetensors_header(file, file.size()));
  std::map<std::string, TensorView, std::less<>> tensors;
  for (const TensorEntry& entry : header.tensors) {
    tensors[entry.name] = {entry.dtype, entry.shape,
                           file.subspan(header.data_offset + entry.begin, entry.end - entry.begin)};
  }
  CacheParts parts;
  parts.state = header.metadata;
  std::vector<std::vector<std::int64_t>> positions;
  const auto add_numbers = [&](const std::string& name,
                               std::vector<std::vector<std::int64_t>>& to) -> Status {
    const auto found = tensors.find(name);
    if (found == tensors.end()) return {};
    KVFS_ASSIGN(auto numbers, whole_numbers(found->second, name, name != "input_ids"));
    to.push_back(std::move(numbers));
    return {};
  };
  std::vector<std::vector<std::int64_t>> ids;
  KVFS_TRY(add_numbers("input_ids", ids));
  if (!ids.empty()) parts.ids = std::move(ids.front());
  KVFS_TRY(add_numbers("positions", positions));
  while (parts.layers.size() < kMostLayers) {
    const std::string name = "layers." + std::to_string(parts.layers.size());
    const auto key = tensors.find(name + ".key");
    const auto value = tensors.find(name + ".value");
    if (key == tensors.end() && value == tensors.end()) break;
    if (key == tensors.end()) return refuse(name, "no key");
    if (value == tensors.end()) return refuse(name, "no value");
    if (tensors.contains(name + ".head_offsets")) {
      return refuse_cache(name, "its heads differ in length, and its type is not the model's",
                          "import it where the model computes in the type it was exported in");
    }
    KVFS_TRY(add_numbers(name + ".positions", positions));
    parts.layers.push_back({key->second, value->second});
  }
  if (parts.layers.empty()) return refuse("safetensors file", "no tensor layers.0.key");
  if (!positions.empty()) parts.positions = std::move(positions);
  return parts;
}

}  // namespace kvfs::container

#include "engine/store/bundles.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <functional>
#include <string_view>
#include <utility>

namespace kvfs::store {
namespace {

namespace json = boost::json;

constexpr std::string_view kFormat = "format", kFormatFact = "kvfs";
constexpr std::array<std::string_view, 6> kTexts = {"model", "fingerprint", "kernel_class",
                                                    "dtype", "codec",       "root"};
constexpr std::array<std::string_view, 5> kNumbersAndLists = {kFormat, "n_tokens", "next_pos",
                                                              "layers", "origin"};
constexpr std::uint64_t kMostJson = std::uint64_t{16} << 20;

std::string fact_named(std::string_view key) {
  return std::string(key == kFormat ? kFormatFact : key);
}

}  // namespace

bool fits_pt(const VersionRecord& version) {
  for (std::size_t i = 0; i < version.layers.size(); ++i) {
    const std::vector<std::uint32_t>& lengths = version.extents[i].lengths;
    const LayerShape& shape = version.layers[i];
    const bool pairs = shape.kind != LayerKind::kConvolution && shape.value_width != 0;
    if (!pairs || std::ranges::adjacent_find(lengths, std::not_equal_to{}) != lengths.end()) {
      return false;
    }
  }
  return true;
}

Result<BundleFacts> bundle_facts(Store& store, const VersionRecord& version) {
  KVFS_ASSIGN(const auto view, state_json_view(store, version));
  KVFS_ASSIGN(const std::string text, read_whole(*view, kMostJson, "state.json"));
  const json::value document = json::parse(text);  // of our own making
  BundleFacts facts;
  for (const auto& [key, value] : document.get_object()) {
    facts[fact_named(key)] =
        value.is_string() ? std::string(value.get_string()) : json::serialize(value);
  }
  return facts;
}

Result<StateDocument> parse_bundle_facts(const BundleFacts& facts) {
  if (!facts.contains(std::string(kFormatFact))) {
    return fail(ErrorCode::kNotFound, "what a bundle says of its state", "it says nothing");
  }
  json::object document;
  for (const std::string_view key : kTexts) {
    const auto fact = facts.find(fact_named(key));
    if (fact != facts.end()) document[key] = json::string(fact->second);
  }
  for (const std::string_view key : kNumbersAndLists) {
    const auto fact = facts.find(fact_named(key));
    if (fact == facts.end()) continue;
    boost::system::error_code error;
    document[key] = json::parse(fact->second, error);
    if (error) {
      return fail(ErrorCode::kInvalid, "what a bundle says of its state",
                  fact->first + " is not JSON", "save the bundle without it");
    }
  }
  return parse_state_json(json::serialize(document));
}

}  // namespace kvfs::store

// What kvpress and the rules of pyramid and KVCache-Factory keep, and what choose() keeps, of the
// same scores. goldens.json is made by make_goldens.py.
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <fstream>
#include <numeric>
#include <string>

#include "engine/prune/choose.h"

namespace kvfs::prune {
namespace {

namespace json = boost::json;

struct Golden {
  std::string policy;
  Observation observation;
  Kept kept;
};

Golden golden_of(const json::object& from) {
  Golden golden{.policy = json::value_to<std::string>(from.at("policy"))};
  std::vector<Position> positions(from.at("tokens").to_number<std::size_t>());
  std::iota(positions.begin(), positions.end(), 0);
  for (const auto& layer : from.at("layers").as_array()) {
    LayerObservation& seen = golden.observation.emplace_back();
    seen.positions.assign(from.at("kv_heads").to_number<std::size_t>(), positions);
    seen.scores = json::value_to<HeadScores>(layer.at("scores"));
    if (const auto* norms = layer.as_object().if_contains("value_norms"))
      seen.value_norms = json::value_to<HeadScores>(*norms);
  }
  golden.kept = json::value_to<Kept>(from.at("kept"));
  return golden;
}

std::vector<Golden> goldens() {
  std::ifstream file(KVFS_GOLDENS);
  const json::value all = json::parse(file);
  std::vector<Golden> out;
  for (const auto& one : all.as_array()) out.push_back(golden_of(one.as_object()));
  return out;
}

class Goldens : public ::testing::TestWithParam<Golden> {};

TEST_P(Goldens, TheSameEntriesAreKept) {
  const auto policy = parse_policy(GetParam().policy);
  ASSERT_TRUE(policy) << policy.error().message();
  const auto kept = choose(policy->method, GetParam().observation);
  ASSERT_TRUE(kept) << kept.error().message();
  EXPECT_EQ(*kept, GetParam().kept);
}

INSTANTIATE_TEST_SUITE_P(Published, Goldens, ::testing::ValuesIn(goldens()), [](const auto& of) {
  std::string name = of.param.policy;
  for (char& c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
  }
  return name;
});

}  // namespace
}  // namespace kvfs::prune

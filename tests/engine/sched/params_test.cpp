#include "engine/sched/params.h"

#include <gtest/gtest.h>

namespace kvfs::sched {
namespace {

std::string kept(std::string_view name, std::string_view value) {
  const auto checked = check_param(name, value);
  return checked ? *checked : "refused: " + checked.error().message();
}

bool refused(std::string_view name, std::string_view value) {
  const auto checked = check_param(name, value);
  return !checked && checked.error().code == ErrorCode::kInvalid &&
         !checked.error().way_out.empty();
}

TEST(Params, ValuesAreKeptInOneSpelling) {
  EXPECT_EQ(kept("temperature", " 0.70\n"), "0.7");
  EXPECT_EQ(kept("temperature", "-0"), "0");
  EXPECT_EQ(kept("max_tokens", "007"), "7");
  EXPECT_EQ(kept("seed", "18446744073709551615"), "18446744073709551615");
  EXPECT_EQ(kept("truncate", "tail\n"), "tail");
  EXPECT_EQ(kept("top_p", "\n"), "");  // the default again
}

TEST(Params, ValuesOutOfRangeAreRefused) {
  EXPECT_TRUE(refused("temperature", "-0.1"));
  EXPECT_TRUE(refused("temperature", "nan"));
  EXPECT_TRUE(refused("temperature", "inf"));
  EXPECT_TRUE(refused("top_p", "0"));
  EXPECT_TRUE(refused("top_p", "1.01"));
  EXPECT_TRUE(refused("min_p", "1"));
  EXPECT_TRUE(refused("top_k", "-1"));
  EXPECT_TRUE(refused("top_k", "1.5"));
  EXPECT_TRUE(refused("max_tokens", "0"));
  EXPECT_TRUE(refused("max_tokens", "99999999999999"));
  EXPECT_TRUE(refused("repeat_penalty", "0"));
  EXPECT_TRUE(refused("typical", "0"));
  EXPECT_TRUE(refused("typical", "1.5"));
  EXPECT_TRUE(refused("presence_penalty", "2.1"));
  EXPECT_TRUE(refused("frequency_penalty", "-2.1"));
  EXPECT_TRUE(refused("logprobs", "21"));
  EXPECT_TRUE(refused("logprobs", "true"));
  EXPECT_TRUE(refused("seed", "-1"));
  EXPECT_TRUE(refused("template", "jinja"));
  EXPECT_TRUE(refused("codec", "gzip"));
  EXPECT_TRUE(refused("model", "a/b"));
  EXPECT_TRUE(refused("model", "\xFF"));
  EXPECT_TRUE(refused("no_such", "1"));
}

TEST(Params, StopsAreLinesOrAJsonArray) {
  EXPECT_EQ(kept("stop", "END\n"), R"(["END"])");
  EXPECT_EQ(kept("stop", "one\ntwo"), R"(["one","two"])");
  EXPECT_EQ(kept("stop", R"(["\n\n", "two"])"), R"(["\n\n","two"])");
  EXPECT_EQ(kept("stop", "[/INST]"), R"(["[/INST]"])");
  EXPECT_EQ(kept("stop", "[]"), "");
  EXPECT_TRUE(refused("stop", R"([""])"));
  EXPECT_TRUE(refused("stop", std::string(257, 'x')));
  const auto resolved = resolve_params({{"stop", kept("stop", "one\ntwo")}});
  EXPECT_EQ(resolved->stop, (std::vector<std::string>{"one", "two"}));
}

TEST(Params, BiasesAreAJsonObjectOfIds) {
  EXPECT_EQ(kept("logit_bias", R"( {"42": -100, "007": 1.50} )"), R"({"7":1.5,"42":-100})");
  EXPECT_EQ(kept("logit_bias", "{}"), "");
  EXPECT_EQ(kept("logit_bias", R"({"1": 0})"), "");
  EXPECT_TRUE(refused("logit_bias", "42"));
  EXPECT_TRUE(refused("logit_bias", R"([1])"));
  EXPECT_TRUE(refused("logit_bias", R"({"-1": 1})"));
  EXPECT_TRUE(refused("logit_bias", R"({"one": 1})"));
  EXPECT_TRUE(refused("logit_bias", R"({"1": 100.5})"));
  EXPECT_TRUE(refused("logit_bias", R"({"1": "2"})"));
  EXPECT_TRUE(refused("logit_bias", R"({"99999999999": 1})"));
  std::string many;
  for (int id = 0; id < 1025; ++id)
    many += (many.empty() ? "{\"" : ",\"") + std::to_string(id) + "\":1";
  EXPECT_TRUE(refused("logit_bias", many + "}"));
  const auto resolved = resolve_params({{"logit_bias", R"({"7":1.5,"42":-100})"}});
  EXPECT_EQ(resolved->sampling.logit_bias,
            (std::vector<std::pair<TokenId, float>>{{7, 1.5F}, {42, -100.F}}));
}

TEST(Params, DefaultsAreThoseOfThePage) {
  const auto params = resolve_params({});
  ASSERT_TRUE(params);
  EXPECT_FLOAT_EQ(params->sampling.temperature, 0.8F);
  EXPECT_EQ(params->sampling.top_k, 0);
  EXPECT_FLOAT_EQ(params->sampling.top_p, 1.F);
  EXPECT_FLOAT_EQ(params->sampling.min_p, 0.F);
  EXPECT_FLOAT_EQ(params->sampling.typical, 1.F);
  EXPECT_FLOAT_EQ(params->sampling.repeat_penalty, 1.F);
  EXPECT_FLOAT_EQ(params->sampling.presence_penalty, 0.F);
  EXPECT_FLOAT_EQ(params->sampling.frequency_penalty, 0.F);
  EXPECT_TRUE(params->sampling.logit_bias.empty());
  EXPECT_EQ(params->logprobs, 0);
  EXPECT_EQ(params->max_tokens, 256);
  EXPECT_FALSE(params->seed);
  EXPECT_EQ(params->mode, TemplateMode::kAuto);
  EXPECT_EQ(params->truncate, Truncate::kError);
  EXPECT_TRUE(params->stop.empty());
}

TEST(Params, EveryDefaultPassesItsOwnCheck) {
  for (const auto& spec : param_table()) {
    EXPECT_EQ(kept(spec.name, spec.default_value), spec.default_value) << spec.name;
    EXPECT_TRUE(is_param(spec.name));
  }
  EXPECT_FALSE(is_param("heat"));
}

}  // namespace
}  // namespace kvfs::sched

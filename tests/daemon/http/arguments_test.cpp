#include "daemon/http/arguments.h"

#include <gtest/gtest.h>

#include <boost/json/parse.hpp>

namespace kvfs::daemon::http {
namespace {

boost::json::object object(const char* text) { return boost::json::parse(text).as_object(); }

TEST(Arguments, FieldsThatNobodyKnowsAreNamed) {
  EXPECT_TRUE(only_fields(object(R"({"a":1})"), {"a", "b"}));
  const Status refused = only_fields(object(R"({"a":1,"c":2})"), {"a", "b"});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().what, "field 'c'");
  EXPECT_EQ(refused.error().way_out, "there are: a, b");
}

TEST(Arguments, MissingFieldsAreTheFallbackAndOthersMustFit) {
  const auto body = object(R"({"text":"x","number":3,"half":1.5,"truth":true,"none":null})");
  EXPECT_EQ(*text_field(body, "text"), "x");
  EXPECT_EQ(*text_field(body, "absent", "y"), "y");
  EXPECT_EQ(*text_field(body, "none", "y"), "y");
  EXPECT_FALSE(text_field(body, "number"));
  EXPECT_EQ(*number_field(body, "number", 1, 1, 9), 3);
  EXPECT_EQ(*number_field(body, "absent", 1, 1, 9), 1);
  EXPECT_FALSE(number_field(body, "number", 1, 4, 9));
  EXPECT_FALSE(number_field(body, "half", 1, 1, 9));
  EXPECT_FALSE(number_field(body, "text", 1, 1, 9));
  EXPECT_TRUE(*truth_field(body, "truth", false));
  EXPECT_FALSE(truth_field(body, "number", false));
}

TEST(Arguments, ParamsMayBeStringsOrNumbersAndAreChecked) {
  const auto params = params_field(object(R"({"params":{"temperature":0,"max_tokens":"30"}})"));
  ASSERT_TRUE(params);
  EXPECT_EQ(params->at("max_tokens"), "30");
  EXPECT_EQ(std::stod(params->at("temperature")), 0.0);
  EXPECT_TRUE(params_field(object("{}"))->empty());
  const auto unknown = params_field(object(R"({"params":{"temprature":1}})"));
  ASSERT_FALSE(unknown);
  EXPECT_NE(unknown.error().message().find("temprature"), std::string::npos);
  EXPECT_FALSE(params_field(object(R"({"params":{"top_p":1.5}})")));
  EXPECT_FALSE(params_field(object(R"({"params":[1]})")));
}

}  // namespace
}  // namespace kvfs::daemon::http

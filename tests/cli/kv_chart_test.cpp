#include "cli/kv_chart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/parse.hpp>

namespace kvfs::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

boost::json::object refresh(const char* text) { return boost::json::parse(text).as_object(); }

TEST(KvChart, ABarALayerShowsWhatStaysAndWhatWent) {
  const auto lines = kv_chart(refresh(R"({"step": 48, "text": " and\nthen", "kv_bytes": 11200000,
      "before": [1600, 1600, 1600, 800], "lengths": [1600, 900, 400, 100], "top_budget": 128})"),
                              {.columns = 76, .bar_rows = 2});
  EXPECT_THAT(lines,
              ElementsAre("pruned at 48: 11.2 MB of KV, the top layer holds 100, its budget is 128",
                          " 1,600┤██ ▁▁ ░░    ",  //
                          "      │██ ██ ▄▄ ▁▁ ",  //
                          "layer  0         3",   //
                          "… and then"));
}

TEST(KvChart, MoreLayersThanColumnsShareBarsAndNoLineIsTooWide) {
  boost::json::object of_many =
      refresh(R"({"read": 4096, "text": "文字文字文字文字文字文字文字"})");
  boost::json::array lengths;
  for (int layer = 0; layer < 100; ++layer) lengths.emplace_back(10 * (100 - layer));
  of_many["lengths"] = of_many["before"] = lengths;
  const auto lines = kv_chart(of_many, {.columns = 24, .bar_rows = 3}, "f");
  ASSERT_EQ(lines.size(), 3U + kLinesBesideBars);
  EXPECT_EQ(lines[0], "f pruned at 4,096 read: ");
  EXPECT_THAT(lines[1], HasSubstr("1,000┤█"));
  EXPECT_EQ(lines.back(), "…文字文字文字文字文字文");
  for (const std::string& line : lines) EXPECT_EQ(clipped(line, 24), line);
}

TEST(KvChart, TextIsCutBetweenCharactersAndStaysOnItsLine) {
  EXPECT_EQ(clipped("añb\tc\033[2J", 8), "añb c [2");
  EXPECT_EQ(clipped("ab文", 3), "ab");
  EXPECT_EQ(clipped("", 0), "");
}

}  // namespace
}  // namespace kvfs::cli

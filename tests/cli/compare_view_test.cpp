#include "cli/compare_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/parse.hpp>

namespace kvfs::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

boost::json::object object(const char* text) { return boost::json::parse(text).as_object(); }

const char* const kTurn =
    R"({"index":0,"state_tokens":900,"prompt_tokens":12,"methods":["full"],"prunes":"before",
        "model":"tiny","kernel_class":"cpu-fast-1","restore_seconds":0})";
const char* const kFull =
    R"({"turn":0,"method":0,"words":"full","text":"By the sea.","tokens":4,"finish":"stop",
        "seconds":{"prune":0,"prefill":0.25,"generate":0.5},"tokens_per_second":8,
        "kv_bytes":21000000,"retention":1,"lengths":[916,916],"kl":[0,0,0,0],"mean_kl":0,
        "perplexity":1.5})";
const char* const kPruned =
    R"({"turn":0,"method":1,"words":"pyramid window=8 bottom=90 top=30","text":"By\nthe bay.",
        "tokens":4,"finish":"stop","seconds":{"prune":0.5,"prefill":0.25,"generate":0.25},
        "tokens_per_second":16,"kv_bytes":1400000,"retention":0.0667,"lengths":[106,46],
        "budgets":[90,30],"window":8,"refresh":16,"start":256,
        "differs":{"token":1,"full":" the sea.","own":"\nthe bay."},"kl":[0,0.5,0.25,0.25],
        "mean_kl":0.25,"perplexity":2.25})";
const char* const kRefused =
    R"({"turn":0,"method":2,"words":"kvzip keep=0.5","error":{"code":"invalid",
        "what":"prune by kvzip","why":"no text","way_out":"take knorm"}})";

TEST(CompareView, ShowsEachMethodAndThenATable) {
  CompareView view("whale");
  EXPECT_EQ(view.turn(object(kTurn)),
            "whale: 900 tokens, and 12 of the prompt; on tiny; pruned before the prompt is read\n");
  EXPECT_EQ(view.result(object(kFull)), "\n-- full\n   holds 916\nBy the sea.\n");
  EXPECT_EQ(view.result(object(kPruned)),
            "\n-- pyramid window=8 bottom=90 top=30\n"
            "   budgets 90 … 30, window 8, refresh 16, start 256; holds 106 … 46\n"
            "By\nthe bay.\n"
            "   parts from full at token 1: full goes on with \" the sea.\", it with "
            "\"\\nthe bay.\"\n");
  EXPECT_EQ(view.result(object(kRefused)),
            "\n-- kvzip keep=0.5\n   refused: prune by kvzip: no text; take knorm\n");
  EXPECT_EQ(view.table(),
            "\n"
            "method   kept     KV       prune   prefill  answer  in all  tok/s  KL, nats  "
            "perplexity  parts at\n"
            "full     100.0 %  21.0 MB  0.00 s  0.25 s   0.50 s  0.75 s  8.0    0         "
            "1.50        -\n"
            "pyramid  6.7 %    1.4 MB   0.50 s  0.25 s   0.25 s  1.00 s  16.0   0.250     "
            "2.25        token 1\n"
            "kvzip    refused\n");
}

TEST(CompareView, OfSeveralTurnsTheFigureHasTheLengthsOfTheLastAndTheKlOfAll) {
  CompareView view("whale");
  for (int turn = 0; turn < 2; ++turn) {
    view.turn(object(kTurn));
    view.result(object(kFull));
    view.result(object(kPruned));
  }
  const PlotData plot = view.plot();
  EXPECT_THAT(plot.title, HasSubstr("whale: 900 tokens on tiny"));
  EXPECT_THAT(plot.turns, ElementsAre(4U));
  ASSERT_EQ(plot.series.size(), 2U);
  EXPECT_THAT(plot.series[1].lengths, ElementsAre(106, 46));
  EXPECT_THAT(plot.series[1].kl, ElementsAre(0, 0.5, 0.25, 0.25, 0, 0.5, 0.25, 0.25));
  EXPECT_THAT(plot.series[1].facts, HasSubstr("6.7 % kept · KL 0.250 · perplexity 2.25"));
}

TEST(CompareView, MethodsOfOneNameAreToldApartInTheTable) {
  CompareView view("whale");
  view.turn(object(kTurn));
  auto other = object(kPruned);
  other["words"] = "pyramid window=9";
  view.result(object(kPruned));
  view.result(other);
  EXPECT_THAT(view.table(), HasSubstr("\npyramid window=8 bottom=90 top=30  6.7 %"));
  EXPECT_THAT(view.table(), HasSubstr("\npyramid window=9 "));
}

}  // namespace
}  // namespace kvfs::cli

#include "cli/plot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

namespace kvfs::cli {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

PlotData some() {
  return {.title = "whale: 900 tokens <on> a model & more",
          .series = {{"full", "100 % kept", {900, 900, 900}, {0, 0, 0, 0}},
                     {"snapkv capacity=450", "50 % kept", {450, 450, 450}, {0.1, 0.02, 0.4, 0}},
                     {"knorm keep=0.5", "50 % kept", {450, 450, 450}, {0.3, 0.1, 0.02, 0.25}},
                     {"kvzip keep=0.5", "refused", {}, {}}},
          .turns = {2}};
}

std::string svg_of(const PlotData& data) {
  const auto canvas = svg_canvas(kPlotWidth, plot_height(data));
  draw(*canvas, data);
  return *canvas->bytes();
}

std::string file_of(const PlotData& data, const std::string& suffix) {
  const std::string path = ::testing::TempDir() + "/plot-" + std::to_string(::getpid()) + suffix;
  EXPECT_TRUE(write_plot(path, data));
  std::ifstream file(path, std::ios::binary);
  std::stringstream bytes;
  bytes << file.rdbuf();
  ::unlink(path.c_str());
  return bytes.str();
}

TEST(Plot, AnSvgHasItsWordsAndACurveAMethodAndPanel) {
  const std::string svg = svg_of(some());
  EXPECT_THAT(svg, AllOf(HasSubstr("whale: 900 tokens &lt;on&gt; a model &amp; more"),
                         HasSubstr(">snapkv capacity=450<"), HasSubstr(">50 % kept<"),
                         HasSubstr(">1000<"), HasSubstr(">0.4<"), HasSubstr("nats")));
  // The panel is 260 high from 78 on: 450 of 1000 entries is at 78 + 260 · 0.55.
  EXPECT_THAT(svg, HasSubstr("points=\"84,221 269,221 454,221\""));
  // Of two on one line the second is dashed.
  EXPECT_THAT(svg, HasSubstr("stroke=\"#d55e00\" stroke-width=\"1.8\" stroke-linejoin=\"round\" "
                             "stroke-dasharray"));
  EXPECT_EQ(file_of(some(), ".svg"), svg);
}

TEST(Plot, NothingIsDrawnOutside) {
  PlotData data = some();
  data.series[1].kl = {1e30, 0, 5e-9};
  EXPECT_THAT(svg_of(data),
              AllOf(Not(HasSubstr("nan")), Not(HasSubstr("inf")), HasSubstr("</svg>")));
  EXPECT_THAT(svg_of({}), AllOf(Not(HasSubstr("nan")), Not(HasSubstr("inf"))));
}

TEST(Plot, APngIsTwiceAsLargeAsTheSvg) {
  const Status can = check_plot("a.png");
  ASSERT_TRUE(can) << can.error().message();
  const std::string png = file_of(some(), ".png");
  ASSERT_GT(png.size(), 10'000U);
  EXPECT_EQ(png.substr(0, 8), "\x89PNG\r\n\x1a\n");
  const auto big_endian = [&](std::size_t at) {
    unsigned value = 0;
    for (std::size_t i = 0; i < 4; ++i)
      value = value << 8U | static_cast<unsigned char>(png[at + i]);
    return value;
  };
  EXPECT_EQ(big_endian(16), 1920U);
  EXPECT_EQ(big_endian(20), static_cast<unsigned>(2 * plot_height(some())));
}

TEST(Plot, OtherSuffixesAndPlacesAreRefused) {
  EXPECT_EQ(check_plot("a.pdf").error().message(),
            "plot a.pdf: neither an .svg nor a .png; name one of these");
  EXPECT_TRUE(check_plot("a.svg"));
  EXPECT_THAT(write_plot("/nowhere/a.svg", some()).error().message(),
              HasSubstr("plot /nowhere/a.svg: No such file"));
}

}  // namespace
}  // namespace kvfs::cli

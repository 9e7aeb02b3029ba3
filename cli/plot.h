// The figure of a comparison: what each method's cache holds by layer, and how far its distribution
// is from the full one's along the full answer. As SVG or PNG, by the file's suffix.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "cli/canvas.h"
#include "codec/base/result.h"

namespace kvfs::cli {

struct PlotSeries {
  std::string name;             // the method's words
  std::string facts;            // beside it in the legend
  std::vector<double> lengths;  // entries, by layer from the bottom
  std::vector<double> kl;       // nats, by token; of all turns, one behind the other
};
struct PlotData {
  std::string title;
  std::vector<PlotSeries> series;  // the full method first
  std::vector<std::size_t> turns;  // tokens at which turns begin, but for the first
};

// kInvalid: another suffix than .svg or .png; kUnsupported: no PNG here. Before anything is run.
Status check_plot(const std::filesystem::path& file);
void draw(Canvas& canvas, const PlotData& data);
double plot_height(const PlotData& data);
Status write_plot(const std::filesystem::path& file, const PlotData& data);

inline constexpr double kPlotWidth = 960;

}  // namespace kvfs::cli

#include "cli/plot.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>

namespace kvfs::cli {
namespace {

constexpr unsigned kPaper = 0xFFFFFF;
constexpr unsigned kText = 0x222222;
constexpr unsigned kFaint = 0x666666;
constexpr unsigned kGrid = 0xE3E3E3;
constexpr unsigned kFull = 0x222222;
// Okabe and Ito's colours, which people who see few colours can tell apart too; then dashed.
constexpr std::array kColors{0x0072B2U, 0xD55E00U, 0x009E73U, 0xCC79A7U, 0xE69F00U, 0x56B4E9U};
constexpr double kTop = 78;  // of the panels
constexpr double kPanelHeight = 260;
constexpr double kLegend = kTop + kPanelHeight + 62;
constexpr double kRow = 19;

struct Axis {
  double least = 0;
  double most = 1;
  double step = 1;
};

// From 0 up to some four or five round steps.
Axis axis_for(double most, bool whole) {
  if (!(most > 0)) most = 1;
  const double rough = most / 4.5;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  double step = power;
  for (const double factor : {1.0, 2.0, 2.5, 5.0, 10.0}) {
    step = power * factor;
    if (step >= rough) break;
  }
  if (whole) step = std::max(1.0, std::round(step));
  return {0, std::ceil(most / step - 1e-9) * step, step};
}

std::string label(double value, double step) {
  char text[32];
  const int decimals = std::max(0, static_cast<int>(std::ceil(-std::log10(step) - 1e-9)));
  const bool half = decimals >= 0 && std::abs(step * std::pow(10, decimals) -
                                              std::round(step * std::pow(10, decimals))) > 1e-6;
  std::snprintf(text, sizeof text, "%.*f", decimals + (half ? 1 : 0), value);
  return text;
}

Ink ink_of(std::size_t series) {
  if (series == 0) return {kFull, 1.6, 0};
  const std::size_t i = series - 1;
  return {kColors[i % kColors.size()], 1.8,
          i < kColors.size() ? 0.0 : 3.0 * static_cast<double>(i / kColors.size())};
}

// Methods of one budget lie on each other: those behind are dashed, so that each colour is seen.
Ink apart(Ink ink, const PlotData& data, std::size_t series) {
  const auto before = data.series.begin() + static_cast<std::ptrdiff_t>(series);
  const auto same = std::count_if(data.series.begin(), before, [&](const PlotSeries& other) {
    return other.lengths == data.series[series].lengths;
  });
  if (same > 0) ink.dash = 18.0 / static_cast<double>(same);
  return ink;
}

class Panel {
 public:
  Panel(Canvas& canvas, double left, double width, Axis x, Axis y)
      : canvas_(canvas), left_(left), width_(width), x_(x), y_(y) {}

  Point at(double x, double y) const {
    return {left_ + width_ * (x - x_.least) / (x_.most - x_.least),
            kTop + kPanelHeight * (1 - (y - y_.least) / (y_.most - y_.least))};
  }

  void frame(const std::string& title, const std::string& below, const std::string& beside) {
    canvas_.text({left_, kTop - 14}, title, 13, kText, Anchor::kStart, true);
    for (double y = y_.least; y <= y_.most + y_.step / 2; y += y_.step) {
      canvas_.line({at(x_.least, y), at(x_.most, y)}, {kGrid, 1, 0});
      const Point to = at(x_.least, y);
      canvas_.text({to.x - 8, to.y + 4}, label(y, y_.step), 11, kFaint, Anchor::kEnd);
    }
    for (double x = std::ceil(x_.least / x_.step) * x_.step; x <= x_.most + 1e-9; x += x_.step) {
      const Point to = at(x, y_.least);
      canvas_.line({to, {to.x, to.y + 4}}, {kFaint, 1, 0});
      canvas_.text({to.x, to.y + 17}, label(x, x_.step), 11, kFaint, Anchor::kMiddle);
    }
    canvas_.line({at(x_.least, y_.least), at(x_.most, y_.least)}, {kFaint, 1, 0});
    canvas_.text({left_ + width_ / 2, kTop + kPanelHeight + 35}, below, 11.5, kText,
                 Anchor::kMiddle);
    canvas_.text({left_ - 52, kTop + kPanelHeight / 2}, beside, 11.5, kText, Anchor::kMiddle, false,
                 true);
  }

  void curve(const std::vector<double>& values, const Ink& ink) {
    std::vector<Point> points;
    for (std::size_t i = 0; i < values.size(); ++i) {
      points.push_back(at(static_cast<double>(i), std::min(values[i], y_.most)));
    }
    if (points.size() == 1) points.push_back({points[0].x + 4, points[0].y});
    if (!points.empty()) canvas_.line(points, ink);
  }

  void mark(double x) { canvas_.line({at(x, y_.least), at(x, y_.most)}, {kFaint, 1, 2}); }

 private:
  Canvas& canvas_;
  const double left_;
  const double width_;
  const Axis x_;
  const Axis y_;
};

double largest(const PlotData& data, std::vector<double> PlotSeries::*values) {
  double most = 0;
  for (const PlotSeries& series : data.series) {
    for (const double value : series.*values) most = std::max(most, value);
  }
  return most;
}

Axis across(const PlotData& data, std::vector<double> PlotSeries::*values) {
  std::size_t count = 0;
  for (const PlotSeries& series : data.series) count = std::max(count, (series.*values).size());
  const double most = count > 1 ? static_cast<double>(count - 1) : 1;
  return {0, most, axis_for(most, true).step};
}

void draw_legend(Canvas& canvas, const PlotData& data) {
  double y = kLegend;
  for (std::size_t i = 0; i < data.series.size(); ++i, y += kRow) {
    canvas.line({{72, y - 4}, {100, y - 4}}, ink_of(i));
    canvas.text({110, y}, data.series[i].name, 11.5, kText, Anchor::kStart);
    canvas.text({kPlotWidth - 34, y}, data.series[i].facts, 11.5, kFaint, Anchor::kEnd);
  }
}

bool is_png(const std::filesystem::path& file) { return file.extension() == ".png"; }

}  // namespace

Status check_plot(const std::filesystem::path& file) {
  if (file.extension() == ".svg") return {};
  if (is_png(file)) {
    KVFS_TRY(png_canvas(1, 1));
    return {};
  }
  return fail(ErrorCode::kInvalid, "plot " + file.string(), "neither an .svg nor a .png",
              "name one of these");
}

double plot_height(const PlotData& data) {
  return kLegend + kRow * static_cast<double>(data.series.size()) + 6;
}

void draw(Canvas& canvas, const PlotData& data) {
  canvas.rectangle({0, 0}, {kPlotWidth, plot_height(data)}, kPaper);
  canvas.text({34, 32}, data.title, 14, kText, Anchor::kStart, true);
  Panel lengths(canvas, 84, 370, across(data, &PlotSeries::lengths),
                axis_for(largest(data, &PlotSeries::lengths), true));
  lengths.frame("What each layer holds", "layer, from the bottom", "entries a KV head");
  Panel kl(canvas, 546, 380, across(data, &PlotSeries::kl),
           axis_for(largest(data, &PlotSeries::kl), false));
  kl.frame("How far from full, along its answer", "token of the full answer", "KL, nats");
  for (const std::size_t token : data.turns) kl.mark(static_cast<double>(token));
  for (std::size_t i = 0; i < data.series.size(); ++i) {
    lengths.curve(data.series[i].lengths, apart(ink_of(i), data, i));
    Ink thin = ink_of(i);
    thin.width = 1.3;
    kl.curve(data.series[i].kl, thin);
  }
  draw_legend(canvas, data);
}

Status write_plot(const std::filesystem::path& file, const PlotData& data) {
  const double height = plot_height(data);
  std::unique_ptr<Canvas> canvas;
  if (is_png(file)) {
    KVFS_ASSIGN(canvas, png_canvas(kPlotWidth, height));
  } else {
    canvas = svg_canvas(kPlotWidth, height);
  }
  draw(*canvas, data);
  KVFS_ASSIGN(const std::string bytes, canvas->bytes());
  std::ofstream out(file, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  out.close();
  if (out) return {};
  return fail(ErrorCode::kIo, "plot " + file.string(), std::strerror(errno),
              "name a place that can be written");
}

}  // namespace kvfs::cli

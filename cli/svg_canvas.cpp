// SVG 1.1, written by hand: a figure of a few kilobytes whose words can be searched.
#include <cstdio>

#include "cli/canvas.h"

namespace kvfs::cli {
namespace {

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", value);
  std::string out = text;
  if (out.ends_with(".0")) out.resize(out.size() - 2);
  return out == "-0" ? "0" : out;
}

std::string color(unsigned rgb) {
  char text[16];
  std::snprintf(text, sizeof text, "#%06x", rgb & 0xFFFFFFU);
  return text;
}

// Control characters are not allowed in XML at all.
std::string escaped(std::string_view words) {
  std::string out;
  for (const char c : words) {
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else {
      out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return out;
}

class SvgCanvas final : public Canvas {
 public:
  SvgCanvas(double width, double height) {
    const std::string size = number(width) + "\" height=\"" + number(height);
    out_ = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + size + "\" viewBox=\"0 0 " +
           number(width) + " " + number(height) +
           "\" font-family=\"DejaVu Sans, Verdana, sans-serif\">\n";
  }

  void rectangle(Point corner, Point size, unsigned rgb) override {
    out_ += "<rect x=\"" + number(corner.x) + "\" y=\"" + number(corner.y) + "\" width=\"" +
            number(size.x) + "\" height=\"" + number(size.y) + "\" fill=\"" + color(rgb) + "\"/>\n";
  }

  void line(const std::vector<Point>& points, const Ink& ink) override {
    out_ += "<polyline fill=\"none\" stroke=\"" + color(ink.rgb) + "\" stroke-width=\"" +
            number(ink.width) + "\" stroke-linejoin=\"round\"";
    if (ink.dash > 0) {
      out_ += " stroke-dasharray=\"" + number(ink.dash) + " " + number(ink.dash * 0.6) + "\"";
    }
    out_ += " points=\"";
    for (const Point& point : points) out_ += number(point.x) + "," + number(point.y) + " ";
    out_.back() = '"';
    out_ += "/>\n";
  }

  void text(Point at, std::string_view words, double size, unsigned rgb, Anchor anchor, bool bold,
            bool turned) override {
    out_ += "<text x=\"" + number(at.x) + "\" y=\"" + number(at.y) + "\" font-size=\"" +
            number(size) + "\" fill=\"" + color(rgb) + "\"";
    if (anchor == Anchor::kMiddle) out_ += " text-anchor=\"middle\"";
    if (anchor == Anchor::kEnd) out_ += " text-anchor=\"end\"";
    if (bold) out_ += " font-weight=\"bold\"";
    if (turned) out_ += " transform=\"rotate(-90 " + number(at.x) + " " + number(at.y) + ")\"";
    out_ += ">" + escaped(words) + "</text>\n";
  }

  Result<std::string> bytes() override { return out_ + "</svg>\n"; }

 private:
  std::string out_;
};

}  // namespace

std::unique_ptr<Canvas> svg_canvas(double width, double height) {
  return std::make_unique<SvgCanvas>(width, height);
}

}  // namespace kvfs::cli

// What a figure is drawn on: an SVG document, or a PNG by cairo. One thread.
//
// Coordinates are pixels of the SVG from the top left corner; a PNG has twice as many.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "codec/base/result.h"

namespace kvfs::cli {

struct Point {
  double x = 0;
  double y = 0;
};

enum class Anchor { kStart, kMiddle, kEnd };

struct Ink {
  unsigned rgb = 0;  // 0xrrggbb
  double width = 1;  // of lines
  double dash = 0;   // length of dashes; 0: none
};

class Canvas {
 public:
  virtual ~Canvas() = default;
  virtual void rectangle(Point corner, Point size, unsigned rgb) = 0;  // filled
  virtual void line(const std::vector<Point>& points, const Ink& ink) = 0;
  // at: on the base line. turned: a quarter to the left.
  virtual void text(Point at, std::string_view words, double size, unsigned rgb, Anchor anchor,
                    bool bold = false, bool turned = false) = 0;
  // The file's bytes.
  virtual Result<std::string> bytes() = 0;
};

std::unique_ptr<Canvas> svg_canvas(double width, double height);
// Loads libcairo.so.2, which nothing else of kvfs needs. kUnsupported: it is not there.
Result<std::unique_ptr<Canvas>> png_canvas(double width, double height);

}  // namespace kvfs::cli

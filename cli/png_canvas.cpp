// PNG by cairo, which is loaded when one is asked for: kvfs, which runs for every small thing, does
// not bring a graphics library along, nor does the build need one. The few functions used have had
// this binary interface since cairo 1.0 (cairo.h).
#include <dlfcn.h>

#include <cmath>
#include <cstddef>

#include "cli/canvas.h"

namespace kvfs::cli {
namespace {

constexpr double kScale = 2;
constexpr int kRgb24 = 1;      // CAIRO_FORMAT_RGB24
constexpr int kNormal = 0;     // CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL
constexpr int kBold = 1;       // CAIRO_FONT_WEIGHT_BOLD
constexpr int kRoundJoin = 1;  // CAIRO_LINE_JOIN_ROUND
constexpr int kSuccess = 0;    // CAIRO_STATUS_SUCCESS

struct Surface;  // cairo_surface_t
struct Pen;      // cairo_t
struct Extents {
  double x_bearing, y_bearing, width, height, x_advance, y_advance;
};
using Write = int (*)(void* closure, const unsigned char* data, unsigned length);

struct Cairo {
  Surface* (*image_surface_create)(int, int, int) = nullptr;
  Pen* (*create)(Surface*) = nullptr;
  void (*destroy)(Pen*) = nullptr;
  void (*surface_destroy)(Surface*) = nullptr;
  int (*surface_write_to_png_stream)(Surface*, Write, void*) = nullptr;
  void (*scale)(Pen*, double, double) = nullptr;
  void (*set_source_rgb)(Pen*, double, double, double) = nullptr;
  void (*set_line_width)(Pen*, double) = nullptr;
  void (*set_line_join)(Pen*, int) = nullptr;
  void (*set_dash)(Pen*, const double*, int, double) = nullptr;
  void (*rectangle)(Pen*, double, double, double, double) = nullptr;
  void (*move_to)(Pen*, double, double) = nullptr;
  void (*line_to)(Pen*, double, double) = nullptr;
  void (*stroke)(Pen*) = nullptr;
  void (*fill)(Pen*) = nullptr;
  void (*save)(Pen*) = nullptr;
  void (*restore)(Pen*) = nullptr;
  void (*rotate)(Pen*, double) = nullptr;
  void (*select_font_face)(Pen*, const char*, int, int) = nullptr;
  void (*set_font_size)(Pen*, double) = nullptr;
  void (*text_extents)(Pen*, const char*, Extents*) = nullptr;
  void (*show_text)(Pen*, const char*) = nullptr;
};

template <class Function>
bool find(void* library, const char* name, Function& into) {
  into = reinterpret_cast<Function>(::dlsym(library, name));
  return into != nullptr;
}

// The library stays loaded: fontconfig's threads and caches do not like to be taken down.
Result<Cairo> load_cairo() {
  Cairo c;
  void* library = ::dlopen("libcairo.so.2", RTLD_NOW | RTLD_LOCAL);
  const bool whole =
      library != nullptr && find(library, "cairo_image_surface_create", c.image_surface_create) &&
      find(library, "cairo_create", c.create) && find(library, "cairo_destroy", c.destroy) &&
      find(library, "cairo_surface_destroy", c.surface_destroy) &&
      find(library, "cairo_surface_write_to_png_stream", c.surface_write_to_png_stream) &&
      find(library, "cairo_scale", c.scale) &&
      find(library, "cairo_set_source_rgb", c.set_source_rgb) &&
      find(library, "cairo_set_line_width", c.set_line_width) &&
      find(library, "cairo_set_line_join", c.set_line_join) &&
      find(library, "cairo_set_dash", c.set_dash) &&
      find(library, "cairo_rectangle", c.rectangle) && find(library, "cairo_move_to", c.move_to) &&
      find(library, "cairo_line_to", c.line_to) && find(library, "cairo_stroke", c.stroke) &&
      find(library, "cairo_fill", c.fill) && find(library, "cairo_save", c.save) &&
      find(library, "cairo_restore", c.restore) && find(library, "cairo_rotate", c.rotate) &&
      find(library, "cairo_select_font_face", c.select_font_face) &&
      find(library, "cairo_set_font_size", c.set_font_size) &&
      find(library, "cairo_text_extents", c.text_extents) &&
      find(library, "cairo_show_text", c.show_text);
  if (whole) return c;
  return fail(ErrorCode::kUnsupported, "draw a PNG", "libcairo.so.2 is not installed",
              "apt-get install libcairo2, or name a file.svg");
}

int append(void* closure, const unsigned char* data, unsigned length) {
  static_cast<std::string*>(closure)->append(reinterpret_cast<const char*>(data), length);
  return kSuccess;
}

class PngCanvas final : public Canvas {
 public:
  PngCanvas(const Cairo& cairo, double width, double height)
      : cairo_(cairo),
        surface_(cairo.image_surface_create(kRgb24, static_cast<int>(std::lround(width * kScale)),
                                            static_cast<int>(std::lround(height * kScale)))),
        pen_(cairo.create(surface_)) {
    cairo_.scale(pen_, kScale, kScale);
    cairo_.set_line_join(pen_, kRoundJoin);
  }
  ~PngCanvas() override {
    cairo_.destroy(pen_);
    cairo_.surface_destroy(surface_);
  }
  PngCanvas(const PngCanvas&) = delete;
  PngCanvas& operator=(const PngCanvas&) = delete;

  void rectangle(Point corner, Point size, unsigned rgb) override {
    color(rgb);
    cairo_.rectangle(pen_, corner.x, corner.y, size.x, size.y);
    cairo_.fill(pen_);
  }

  void line(const std::vector<Point>& points, const Ink& ink) override {
    color(ink.rgb);
    cairo_.set_line_width(pen_, ink.width);
    const double dashes[] = {ink.dash, ink.dash * 0.6};
    cairo_.set_dash(pen_, dashes, ink.dash > 0 ? 2 : 0, 0);
    for (std::size_t i = 0; i < points.size(); ++i) {
      (i == 0 ? cairo_.move_to : cairo_.line_to)(pen_, points[i].x, points[i].y);
    }
    cairo_.stroke(pen_);
  }

  void text(Point at, std::string_view words, double size, unsigned rgb, Anchor anchor, bool bold,
            bool turned) override {
    const std::string whole(words);
    color(rgb);
    cairo_.select_font_face(pen_, "DejaVu Sans", kNormal, bold ? kBold : kNormal);
    cairo_.set_font_size(pen_, size);
    Extents extents{};
    cairo_.text_extents(pen_, whole.c_str(), &extents);
    const double shift = anchor == Anchor::kStart    ? 0
                         : anchor == Anchor::kMiddle ? extents.x_advance / 2
                                                     : extents.x_advance;
    cairo_.save(pen_);
    cairo_.move_to(pen_, at.x - (turned ? 0 : shift), at.y + (turned ? shift : 0));
    if (turned) cairo_.rotate(pen_, -std::acos(-1.0) / 2);
    cairo_.show_text(pen_, whole.c_str());
    cairo_.restore(pen_);
  }

  Result<std::string> bytes() override {
    std::string out;
    if (cairo_.surface_write_to_png_stream(surface_, append, &out) == kSuccess) return out;
    return fail(ErrorCode::kIo, "draw a PNG", "cairo could not write it", "name a file.svg");
  }

 private:
  void color(unsigned rgb) {
    const auto part = [&](unsigned shift) { return ((rgb >> shift) & 0xFFU) / 255.0; };
    cairo_.set_source_rgb(pen_, part(16), part(8), part(0));
  }

  const Cairo cairo_;
  Surface* const surface_;  // owned
  Pen* const pen_;          // owned
};

}  // namespace

Result<std::unique_ptr<Canvas>> png_canvas(double width, double height) {
  KVFS_ASSIGN(const Cairo cairo, load_cairo());
  return std::make_unique<PngCanvas>(cairo, width, height);
}

}  // namespace kvfs::cli

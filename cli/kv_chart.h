// What a refresh left of a job's KV, as a bar for each layer:
//
//   pruned at 48: 11.2 MB of KV, the top layer holds 157, its budget is 128
//    4,003 ┤░ ░ ░ ░ ░ ░
//          │░ ░ ░ ░ ░ ░
//          │█ ▆ ▅ ▃ ▂ ▁
//   layer   0         5
//   …text that was generated last
//
// █ is what stays, ░ what was dropped. Pure, any thread.
#pragma once

#include <string>
#include <vector>

#include <boost/json/object.hpp>

namespace kvfs::cli {

struct ChartSize {
  int columns = 80;
  int bar_rows = 6;
};
inline constexpr int kLinesBesideBars = 3;

// refresh: as refresh_json() in daemon/http/present.h has it. As many lines as bar_rows and
// kLinesBesideBars, none wider than columns; of more layers than there is room for, some to a bar.
// job: named where several are watched.
std::vector<std::string> kv_chart(const boost::json::object& refresh, ChartSize size,
                                  const std::string& job = {});

// The first characters of a UTF-8 text that fill at most so many columns, on one line.
std::string clipped(std::string_view text, int columns);

}  // namespace kvfs::cli

// How a comparison looks on a terminal, and what its figure is drawn of. Takes the daemon's lines
// as they come (daemon/http/compare_stream.h has them). One thread.
#pragma once

#include <string>
#include <vector>

#include <boost/json/object.hpp>

#include "cli/plot.h"

namespace kvfs::cli {

class CompareView {
 public:
  explicit CompareView(std::string state) : state_(std::move(state)) {}

  // What to print for a line; empty for most.
  std::string turn(const boost::json::object& turn);
  std::string result(const boost::json::object& result);
  std::string table() const;  // of the turn
  PlotData plot() const;      // of all turns

 private:
  const std::string state_;
  std::string title_;  // of the figure
  std::size_t turns_ = 0;
  std::vector<boost::json::object> results_;  // of the turn
  std::vector<PlotSeries> series_;            // by method
  std::vector<std::size_t> turn_starts_;
  std::size_t full_tokens_ = 0;  // of all turns
};

// "budgets 640 … 128, window 160, refresh 24, start 256; holds 702 … 240"
std::string budgets_line(const boost::json::object& result);

}  // namespace kvfs::cli

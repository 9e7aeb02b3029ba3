// Plain columns on stdout, and sizes as people read them. Pure but for print().
#pragma once

#include <string>
#include <vector>

namespace kvfs::cli {

class Table {
 public:
  void row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  std::string text() const;  // columns two spaces apart, the last one not padded
  void print() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

std::string human_bytes(double bytes);  // "12.3 MB", powers of 1000

}  // namespace kvfs::cli

// Some lines at the bottom of a terminal that are drawn again in place while text goes on scrolling
// above them (a scroll region, as apt has it). One thread; nothing else may move the cursor there.
#pragma once

#include <string>
#include <vector>

namespace kvfs::cli {

class Footer {
 public:
  // A terminal of this size, or nothing is drawn: `columns` and `rows` are 0 then.
  struct Size {
    int columns = 0;
    int rows = 0;
  };

  explicit Footer(int fd) : fd_(fd) {}
  ~Footer() { close(); }
  Footer(const Footer&) = delete;
  Footer& operator=(const Footer&) = delete;

  Size size() const;
  void draw(const std::vector<std::string>& lines);
  // The lines go; the cursor stays where the text ended.
  void close();

 private:
  void write(const std::string& bytes) const;
  std::string reserved(const Size& size, int lines) const;

  const int fd_;
  Size drawn_on_;
  int lines_ = 0;  // reserved
};

}  // namespace kvfs::cli

// The command line of one verb, over CLI11. Its headers cost a file seconds of compiling, so one
// file sees them, not every verb.
//
// What an option is bound to must live until the line was parsed. Names are CLI11's: "STATE" is a
// positional one, "-r,--recursive" has two.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace kvfs::cli {

class Options {
 public:
  explicit Options(CLI::App& app) : app_(app) {}

  void required(const std::string& name, std::string& into, const std::string& help);
  void required(const std::string& name, std::vector<std::string>& into, const std::string& help);
  void value(const std::string& name, std::string& into, const std::string& help);
  // Shows into's value as the default.
  void value(const std::string& name, int& into, const std::string& help);
  // Takes all words that follow.
  void values(const std::string& name, std::vector<std::string>& into, const std::string& help);
  // Takes one word each time it is given.
  void repeatable(const std::string& name, std::vector<std::string>& into, const std::string& help,
                  const std::string& value_name = "TEXT");
  void flag(const std::string& name, bool& into, const std::string& help);
  // group: the heading in --help.
  void value(const std::string& name, std::function<void(const std::string&)> given,
             const std::string& help, const std::string& group = {});
  void flag(const std::string& name, std::function<void()> given, const std::string& help);

 private:
  CLI::App& app_;
};

}  // namespace kvfs::cli

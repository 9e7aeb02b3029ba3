#include "cli/options.h"

#include <utility>

#include <CLI/CLI.hpp>

namespace kvfs::cli {

void Options::required(const std::string& name, std::string& into, const std::string& help) {
  app_.add_option(name, into, help)->required();
}

void Options::required(const std::string& name, std::vector<std::string>& into,
                       const std::string& help) {
  app_.add_option(name, into, help)->required();
}

void Options::value(const std::string& name, std::string& into, const std::string& help) {
  app_.add_option(name, into, help);
}

void Options::value(const std::string& name, int& into, const std::string& help) {
  app_.add_option(name, into, help)->capture_default_str();
}

void Options::values(const std::string& name, std::vector<std::string>& into,
                     const std::string& help) {
  app_.add_option(name, into, help);
}

void Options::repeatable(const std::string& name, std::vector<std::string>& into,
                         const std::string& help, const std::string& value_name) {
  app_.add_option(name, into, help)->type_name(value_name)->take_all()->expected(1);
}

void Options::flag(const std::string& name, bool& into, const std::string& help) {
  app_.add_flag(name, into, help);
}

void Options::value(const std::string& name, std::function<void(const std::string&)> given,
                    const std::string& help, const std::string& group) {
  CLI::Option* option = app_.add_option_function<std::string>(name, std::move(given), help);
  if (!group.empty()) option->group(group);
}

void Options::flag(const std::string& name, std::function<void()> given, const std::string& help) {
  app_.add_flag_callback(name, std::move(given), help);
}

}  // namespace kvfs::cli

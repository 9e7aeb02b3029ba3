// Arguments that several verbs share: states, parameters, texts.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json/object.hpp>

#include "cli/client.h"
#include "cli/options.h"
#include "codec/base/result.h"

namespace kvfs::cli {

// The path below states/ that an argument means. Absolute ones and those that begin with "." are
// paths on the mount, which the daemon is asked for.
Result<std::string> state_path(const Client& client, const std::string& argument);
// The same without a daemon: mount as it says, working_directory for relative paths.
Result<std::string> state_path_on(const std::filesystem::path& mount,
                                  const std::filesystem::path& working_directory,
                                  const std::string& argument);

// Parameters' names, as the daemon has them; it checks the values.
std::span<const std::string_view> param_names();

// Every parameter as a flag of a job: --max-tokens 30.
class ParamFlags {
 public:
  void add(Options& options);
  boost::json::object json() const;

 private:
  std::map<std::string, std::string, std::less<>> given_;
};

// "k=v" pairs as an object; kInvalid names the one that is none.
Result<boost::json::object> parse_pairs(const std::vector<std::string>& pairs);

// All of standard input for "-", else the file. kTooLarge beyond what the daemon takes.
Result<std::string> read_text(const std::string& file);

}  // namespace kvfs::cli

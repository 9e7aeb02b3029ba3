// The committed goldens of engine/text, one JSON value a line.
#pragma once

#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <boost/json.hpp>

#include "codec/base/ids.h"

namespace kvfs::text {

inline std::vector<boost::json::value> golden_lines(const std::string& name) {
  const std::string path = std::string(KVFS_REPO_DIR) + "/tests/engine/text/goldens/" + name;
  std::ifstream file(path);
  EXPECT_TRUE(file) << path << " is missing";
  std::vector<boost::json::value> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(boost::json::parse(line));
  return lines;
}

inline std::string file_text(const std::string& path) {
  std::ifstream file(std::string(KVFS_REPO_DIR) + "/tests/engine/text/" + path);
  EXPECT_TRUE(file) << path << " is missing";
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}
inline std::string template_text(const std::string& family) {
  return file_text("templates/" + family + ".jinja");
}
// What transformers renders of twenty conversations, by template (make_chat_goldens.py).
inline boost::json::value chats_by_template() {
  return boost::json::parse(file_text("goldens/chats_by_template.json"));
}

inline std::string text_of(const boost::json::value& value) {
  return std::string(value.as_string());
}

inline std::vector<TokenId> ids_of(const boost::json::value& value) {
  return boost::json::value_to<std::vector<TokenId>>(value);
}

}  // namespace kvfs::text

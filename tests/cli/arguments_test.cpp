#include "cli/arguments.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include <CLI/CLI.hpp>

namespace kvfs::cli {
namespace {

TEST(StatePath, PathsOnTheMountAreTakenBelowStates) {
  EXPECT_EQ(*state_path_on("/mnt/kvfs", "/home", "/mnt/kvfs/states/a/b"), "a/b");
  EXPECT_EQ(*state_path_on("/mnt/kvfs", "/home", "/mnt/kvfs/states/a/"), "a");
  EXPECT_EQ(*state_path_on("/mnt/kvfs", "/mnt/kvfs/states/a", "."), "a");
  EXPECT_EQ(*state_path_on("/mnt/kvfs", "/mnt/kvfs/states/a", "../b"), "b");
}

TEST(StatePath, OtherPathsAreRefused) {
  for (const char* path : {"/etc", "/mnt/kvfs/states", "/mnt/kvfs/states/", "/mnt/kvfs/statesmen/a",
                           "/mnt/kvfs/states/../models/m"}) {
    const auto refused = state_path_on("/mnt/kvfs", "/home", path);
    EXPECT_FALSE(refused) << path;
  }
  EXPECT_FALSE(state_path_on("", "/home", "/mnt/kvfs/states/a"));
}

TEST(StatePath, APlainNameNeedsNoDaemon) {
  const Client nobody("/nowhere/kvfs.sock");
  EXPECT_EQ(*state_path(nobody, "a/b/"), "a/b");
  EXPECT_FALSE(state_path(nobody, ""));
  EXPECT_FALSE(state_path(nobody, "./a"));
}

TEST(Pairs, AreNameEqualsValue) {
  const auto pairs = parse_pairs({"a=1", "stop=x=y", "seed="});
  ASSERT_TRUE(pairs);
  EXPECT_EQ(pairs->at("a").as_string(), "1");
  EXPECT_EQ(pairs->at("stop").as_string(), "x=y");
  EXPECT_EQ(pairs->at("seed").as_string(), "");
  EXPECT_FALSE(parse_pairs({"a"}));
  EXPECT_FALSE(parse_pairs({"=1"}));
}

TEST(Texts, ComeFromFilesWholeOrNotAtAll) {
  const auto path =
      std::filesystem::temp_directory_path() / ("kvfs-text-" + std::to_string(::getpid()));
  const std::string bytes("two\nlines\0and a zero", 20);
  std::ofstream(path, std::ios::binary) << bytes;
  EXPECT_EQ(*read_text(path.string()), bytes);
  std::filesystem::remove(path);
  const auto missing = read_text(path.string());
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  EXPECT_FALSE(read_text("/"));
}

TEST(Params, EveryOneIsAFlag) {
  CLI::App app;
  ParamFlags flags;
  Options options(app);
  flags.add(options);
  std::vector<std::string> words;  // CLI11 takes them from the back
  for (const std::string_view name : param_names()) {
    std::string flag = "--" + std::string(name);
    std::replace(flag.begin(), flag.end(), '_', '-');
    words.insert(words.begin(), {"value of " + std::string(name), flag});
  }
  app.parse(words);
  const auto json = flags.json();
  EXPECT_EQ(json.size(), param_names().size());
  for (const std::string_view name : param_names()) {
    EXPECT_EQ(json.at(name).as_string(), "value of " + std::string(name));
  }
}

}  // namespace
}  // namespace kvfs::cli

// Which models the catalog finds, and what it calls them.
#include "engine/sched/catalog.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/engine/sched/fake_model.h"

namespace kvfs::sched {
namespace {

namespace fs = std::filesystem;

class CatalogFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::remove_all(folder_);
    fs::create_directories(folder_ / "b-folder.v2");
    fs::create_directories(folder_ / "no-model");
    std::ofstream(folder_ / "a.gguf") << "GGUF";
    std::ofstream(folder_ / "b-folder.v2" / "config.json") << "{}";
    std::ofstream(folder_ / "notes.txt") << "not a model";
  }
  void TearDown() override { fs::remove_all(folder_); }
  Result<std::unique_ptr<Catalog>> open(std::vector<std::string> models) {
    const auto read = [](const fs::path& path, model::Compute, const model::DeviceChoice&,
                         const fs::path&) { return test::fake_card(path, test::FakeControls{}); };
    return Catalog::open({.models = std::move(models), .directory = folder_, .read = read});
  }
  const fs::path folder_ =
      fs::path(::testing::TempDir()) / ("catalog-models-" + std::to_string(::getpid()));
};

using Names = std::vector<std::string>;

TEST_F(CatalogFolder, FindsGgufFilesAndHuggingFaceFolders) {
  const auto catalog = open({});
  ASSERT_TRUE(catalog) << catalog.error().message();
  EXPECT_EQ((*catalog)->names(), (Names{"a", "b-folder.v2"}));
}

TEST_F(CatalogFolder, TakesAFolderByNameAndByPath) {
  const auto by_name = open({"b-folder.v2"});
  ASSERT_TRUE(by_name) << by_name.error().message();
  EXPECT_EQ((*by_name)->names(), (Names{"b-folder.v2", "a"}));
  const auto by_path = open({(folder_ / "b-folder.v2").string() + "/"});
  ASSERT_TRUE(by_path) << by_path.error().message();
  EXPECT_EQ((*by_path)->names(), (Names{"b-folder.v2", "a"}));
}

TEST_F(CatalogFolder, RefusesAFolderWithoutConfig) {
  const auto catalog = open({(folder_ / "no-model").string()});
  ASSERT_FALSE(catalog);
  EXPECT_EQ(catalog.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(catalog.error().message().find("config.json"), std::string::npos);
}

}  // namespace
}  // namespace kvfs::sched

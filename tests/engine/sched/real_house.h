// One real model for all tests of a suite: it takes a second to load.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include "tests/engine/sched/house.h"

namespace kvfs::sched::test {

inline std::filesystem::path model_path() {
  if (const char* path = std::getenv("KVFS_MODEL")) return path;
  return std::filesystem::path(KVFS_DEPS_DIR) / "models/SmolLM2-135M-Instruct.Q4_1.gguf";
}

class RealHouse : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    ASSERT_TRUE(std::filesystem::exists(model_path()))
        << "no model at " << model_path() << ": run scripts/setup, or set KVFS_MODEL";
    house_ = std::make_unique<House>(model_path());
  }
  static void TearDownTestSuite() { house_.reset(); }
  static inline std::unique_ptr<House> house_;

  static ParamMap raw(int max_tokens) {
    return {{"template", "raw"}, {"temperature", "0"}, {"max_tokens", std::to_string(max_tokens)}};
  }
};

}  // namespace kvfs::sched::test

#include "codec/base/result.h"

#include <gtest/gtest.h>

#include <memory>

namespace kvfs {
namespace {

Result<int> half(int number) {
  if (number % 2 != 0) return fail(ErrorCode::kInvalid, "half of 7", "it is odd", "take 8");
  return number / 2;
}

Result<int> quarter(int number) {
  KVFS_ASSIGN(const int once, half(number));
  KVFS_ASSIGN(const int twice, half(once));
  return twice;
}

Status check(int number) {
  KVFS_TRY(half(number));
  return {};
}

Result<std::unique_ptr<int>> boxed(int number) {
  KVFS_ASSIGN(auto box, Result<std::unique_ptr<int>>(std::make_unique<int>(number)));
  return box;
}

TEST(Result, AnErrorReadsWhatWhyAndTheWayOut) {
  EXPECT_EQ(half(7).error().message(), "half of 7: it is odd; take 8");
  EXPECT_EQ((Error{ErrorCode::kIo, "disk", "full", ""}).message(), "disk: full");
}

TEST(Result, AssignYieldsTheValueOrPassesTheErrorOn) {
  EXPECT_EQ(quarter(8).value(), 2);
  const auto odd = quarter(14);
  ASSERT_FALSE(odd);
  EXPECT_EQ(odd.error().code, ErrorCode::kInvalid);
}

TEST(Result, TryPassesTheErrorOn) {
  EXPECT_TRUE(check(8));
  EXPECT_FALSE(check(7));
}

TEST(Result, AssignMovesWhatCannotBeCopied) { EXPECT_EQ(**boxed(5), 5); }

TEST(Result, EveryCodeHasAWordOfItsOwn) {
  std::string words;
  for (int code = 0; code <= static_cast<int>(ErrorCode::kInternal); ++code) {
    const std::string word = std::string(",") + to_string(static_cast<ErrorCode>(code)) + ",";
    EXPECT_NE(word, ",unknown,");
    EXPECT_EQ(words.find(word), std::string::npos) << word;
    words += word;
  }
}

}  // namespace
}  // namespace kvfs

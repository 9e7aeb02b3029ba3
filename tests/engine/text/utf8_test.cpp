#include "engine/text/utf8.h"

#include <gtest/gtest.h>

#include "engine/text/tokenizer.h"

namespace kvfs::text {
namespace {

constexpr const char* kReplacement = "\xEF\xBF\xBD";

TEST(Utf8, TakesEveryWholeSequenceAndNothingElse) {
  for (const char* text :
       {"", "a", "\x7F", "é", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80",
        "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF", "12345678é12345678"}) {
    EXPECT_TRUE(is_valid_utf8(text)) << text;
  }
  EXPECT_TRUE(is_valid_utf8(std::string(3, '\0')));
  for (const char* text :
       {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xC3", "\xE0\x80\x80", "\xE0\x9F\xBF",
        "\xED\xA0\x80", "\xED\xBF\xBF", "\xE4\xB8", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80",
        "\xF5\x80\x80\x80", "\xFF", "\xFE", "abcdefgh\xC3", "\xC3(", "\xF0\x9F\x98"}) {
    EXPECT_FALSE(is_valid_utf8(text)) << text;
  }
}

TEST(Utf8Stream, HoldsBackWhatMayStillBecomeALetter) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("a\xF0\x9F"), "a");
  EXPECT_EQ(stream.push("\x98"), "");
  EXPECT_EQ(stream.push("\x80z"), "😀z");
  EXPECT_EQ(stream.finish(), "");
}

TEST(Utf8Stream, IsTheTextItselfHoweverItIsCut) {
  const std::string text = "naïve 日本 👩‍👩‍👧 end";
  for (std::size_t step = 1; step < 9; ++step) {
    Utf8Stream stream;
    std::string shown;
    for (std::size_t at = 0; at < text.size(); at += step) {
      shown += stream.push(std::string_view(text).substr(at, step));
      EXPECT_TRUE(is_valid_utf8(shown));
    }
    EXPECT_EQ(shown + stream.finish(), text);
  }
}

TEST(Utf8Stream, ReplacesWhatCanNeverBecomeALetter) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("a\x80z"), std::string("a") + kReplacement + "z");
  EXPECT_EQ(stream.push("\xE4\xB8"), "");
  EXPECT_EQ(stream.push("q"), std::string(kReplacement) + "q");  // one for the part that was right
  EXPECT_EQ(stream.push("\xED\xA0\x80"), std::string(kReplacement) + kReplacement + kReplacement);
}

TEST(Utf8Stream, EndsACutLetterWithOneReplacement) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("ok\xF0\x9F\x98"), "ok");
  EXPECT_EQ(stream.finish(), kReplacement);
  EXPECT_EQ(stream.finish(), "");
}

}  // namespace
}  // namespace kvfs::text

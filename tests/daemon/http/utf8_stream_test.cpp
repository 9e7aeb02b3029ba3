#include "engine/text/tokenizer.h"

#include <gtest/gtest.h>

namespace kvfs::daemon::http {
namespace {

TEST(StreamedReply, ACharacterCutAnywhereComesOutWhole) {
  const std::string text = "a\u00e9\u4e2d\U0001F600z";
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    text::Utf8Stream stream;
    const std::string first = stream.push(text.substr(0, cut));
    EXPECT_EQ(first, text.substr(0, first.size())) << cut;
    std::string whole = first + stream.push(text.substr(cut));
    whole += stream.finish();
    EXPECT_EQ(whole, text) << cut;
  }
}

TEST(StreamedReply, BytesThatCannotBecomeACharacterAreReplacedAtOnce) {
  text::Utf8Stream stream;
  EXPECT_EQ(stream.push("a\xFF"
                       "b"),
            "a\uFFFDb");
  EXPECT_EQ(stream.push("\xC3("), "\uFFFD(");
  EXPECT_EQ(stream.push("\x80"), "\uFFFD");
  EXPECT_EQ(stream.push("\xED\xA0\x80z"), "\uFFFD\uFFFD\uFFFDz");  // a surrogate
}

TEST(StreamedReply, WhatNeverEndsIsReplacedAtTheEnd) {
  text::Utf8Stream stream;
  EXPECT_EQ(stream.push("x\xF0\x9F\x98"), "x");
  EXPECT_EQ(stream.finish(), "\uFFFD");
  EXPECT_EQ(stream.finish(), "");
}

}  // namespace
}  // namespace kvfs::daemon::http

#include "daemon/http/utf8_stream.h"

#include <gtest/gtest.h>

namespace kvfs::daemon::http {
namespace {

TEST(Utf8Stream, ACharacterCutAnywhereComesOutWhole) {
  const std::string text = "a\u00e9\u4e2d\U0001F600z";
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    Utf8Stream stream;
    const std::string first = stream.add(text.substr(0, cut));
    EXPECT_EQ(first, text.substr(0, first.size())) << cut;
    std::string whole = first + stream.add(text.substr(cut));
    whole += stream.finish();
    EXPECT_EQ(whole, text) << cut;
  }
}

TEST(Utf8Stream, BytesThatCannotBecomeACharacterAreReplacedAtOnce) {
  Utf8Stream stream;
  EXPECT_EQ(stream.add("a\xFF"
                       "b"),
            "a\uFFFDb");
  EXPECT_EQ(stream.add("\xC3("), "\uFFFD(");
  EXPECT_EQ(stream.add("\x80"), "\uFFFD");
  EXPECT_EQ(stream.add("\xED\xA0\x80z"), "\uFFFD\uFFFD\uFFFDz");  // a surrogate
}

TEST(Utf8Stream, WhatNeverEndsIsReplacedAtTheEnd) {
  Utf8Stream stream;
  EXPECT_EQ(stream.add("x\xF0\x9F\x98"), "x");
  EXPECT_EQ(stream.finish(), "\uFFFD");
  EXPECT_EQ(stream.finish(), "");
}

}  // namespace
}  // namespace kvfs::daemon::http

#include "engine/sched/reply.h"

#include <gtest/gtest.h>

#include <array>
#include <random>

#include "engine/sched/reply_text.h"

namespace kvfs::sched {
namespace {

std::string read(const Reply& reply, std::uint64_t offset) {
  std::array<std::uint8_t, 64> buffer{};
  const auto got = reply.read(offset, buffer);
  return got ? std::string(as_text({buffer.data(), *got})) : "error: " + got.error().message();
}

TEST(Reply, AWaitIsOverWhenTextComes) {
  Reply reply;
  int woken = 0;
  EXPECT_TRUE(reply.wait(0, [&] { ++woken; }));
  reply.append("");
  EXPECT_EQ(woken, 0);
  reply.append("text");
  reply.append("more");
  EXPECT_EQ(woken, 1);
  EXPECT_EQ(read(reply, 0), "textmore");
  EXPECT_EQ(read(reply, 8), "");
}

TEST(Reply, NothingIsRegisteredWhereThereIsSomethingToRead) {
  Reply reply;
  reply.append("text");
  EXPECT_FALSE(reply.wait(3, [] {}));
  EXPECT_TRUE(reply.wait(4, [] {}));
  reply.finish();
  EXPECT_FALSE(reply.wait(4, [] {}));
}

TEST(Reply, ADroppedWaitIsNeverCalled) {
  Reply reply;
  const auto ticket = reply.wait(0, [] { FAIL() << "it was dropped"; });
  EXPECT_TRUE(reply.drop(*ticket));
  EXPECT_FALSE(reply.drop(*ticket));
  reply.finish();
}

TEST(Reply, AWakeMayCallTheReply) {
  Reply reply;
  std::string seen;
  reply.wait(0, [&] {
    seen = read(reply, 0);
    reply.wait(reply.size(), [&] { seen += reply.finished() ? ", the end" : "?"; });
  });
  reply.append("text");
  reply.finish();
  EXPECT_EQ(seen, "text, the end");
}

TEST(Reply, AfterAFailureTheTextIsFollowedByTheError) {
  Reply reply;
  reply.append("half");
  reply.finish(Error{ErrorCode::kIo, "job q", "it broke", ""});
  EXPECT_EQ(read(reply, 0), "half");
  EXPECT_EQ(read(reply, 4), "error: job q: it broke");
  reply.append("late");
  EXPECT_EQ(reply.size(), 4U);
}

// Tokens that are the given pieces; a piece in <…> is special.
class Pieces : public text::Tokenizer {
 public:
  explicit Pieces(std::vector<std::string> pieces) : pieces_(std::move(pieces)) {}
  std::vector<TokenId> encode(std::string_view, text::SpecialText) const override { return {}; }
  std::string_view bytes_of(TokenId id) const override {
    return pieces_[static_cast<std::size_t>(id)];
  }
  bool is_special(TokenId id) const override { return bytes_of(id).starts_with('<'); }
  std::int32_t vocab_size() const override { return static_cast<std::int32_t>(pieces_.size()); }
  std::vector<TokenId> begin_tokens() const override { return {}; }
  const std::vector<TokenId>& end_tokens() const override { return none_; }

 private:
  std::vector<std::string> pieces_;
  std::vector<TokenId> none_;
};

std::vector<std::string> shown(std::vector<std::string> pieces, std::vector<std::string> stops) {
  const Pieces tokenizer(pieces);
  ReplyText text(tokenizer, std::move(stops));
  std::vector<std::string> out;
  for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) out.push_back(text.push(id));
  out.push_back(text.finish());
  return out;
}

using Shown = std::vector<std::string>;

TEST(ReplyText, SpecialTokensAreNotPrinted) {
  EXPECT_EQ(shown({"a", "<end>", "b"}, {}), (Shown{"a", "", "b", ""}));
}

TEST(ReplyText, HalfACharacterWaitsForItsRest) {
  EXPECT_EQ(shown({"caf\xC3", "\xA9!"}, {}), (Shown{"caf", "\xC3\xA9!", ""}));
}

TEST(ReplyText, WhatMayBeginAStopStringIsHeldBack) {
  EXPECT_EQ(shown({"one E", "N", "T", "two EN"}, {"END"}),
            (Shown{"one ", "", "ENT", "two ", "EN"}));
}

TEST(ReplyText, TheFirstStopStringCuts) {
  EXPECT_EQ(shown({"one E", "ND two"}, {"END", "ne"}), (Shown{"o", "", ""}));
  EXPECT_EQ(shown({"one E", "ND two"}, {"END"}), (Shown{"one ", "", ""}));
}

TEST(ReplyText, OfOverlappingStopStringsTheFirstToBeCompleteCuts) {
  for (const auto& pieces : {Shown{"xabcd"}, Shown{"xab", "cd"}, Shown{"x", "a", "b", "c", "d"}}) {
    std::string text;
    for (const auto& piece : shown(pieces, {"abcd", "bc"})) text += piece;
    EXPECT_EQ(text, "xa");
  }
  EXPECT_EQ(shown({"xabc"}, {"bc", "abc", "c"}).front(), "x");  // at once: the longest
}

TEST(ReplyText, AStopStringMayBeginWithinACharacterOfTwoTokens) {
  EXPECT_EQ(shown({"caf\xC3", "\xA9", "s!"}, {"\xC3\xA9s"}), (Shown{"caf", "", "", ""}));
  EXPECT_EQ(shown({"caf\xC3", "\xA9", "t!"}, {"\xC3\xA9s"}), (Shown{"caf", "", "\xC3\xA9t!", ""}));
}

TEST(ReplyText, TokensAreToldOfWithTheirText) {
  const Pieces tokenizer({"on", "e E", "N", "\xC3", "\xA9", "<x>", "E", "ND"});
  ReplyText text(tokenizer, {"END"});
  std::vector<std::size_t> told;
  for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) {
    text.push(id);
    told.push_back(text.tokens_shown());
  }
  EXPECT_EQ(told, (std::vector<std::size_t>{1, 1, 1, 1, 5, 6, 6, 6}));
  EXPECT_EQ(shown({"ab", "cd"}, {"bc"}), (Shown{"a", "", ""}));
}

// What is shown, and which tokens are told of, for every way to cut a text into pieces.
TEST(ReplyText, AnyCuttingShowsWhatTheWholeShows) {
  std::mt19937 generator(11);
  const auto below = [&](std::size_t n) {
    return std::uniform_int_distribution<std::size_t>(0, n - 1)(generator);
  };
  const std::array<std::string, 9> letters{
      "a", "b", "a", "b", "\xC3\xA9", "\xE2\x82\xAC", "\xC3", "\xF0\x9F", "\xFF"};
  const auto word = [&](std::size_t most, std::size_t kinds) {
    std::string out;
    for (std::size_t left = 1 + below(most); left > 0; --left) out += letters[below(kinds)];
    return out;
  };
  for (int round = 0; round < 3000; ++round) {
    const std::string text = word(14, letters.size());
    Shown stops;
    for (std::size_t left = below(4); left > 0; --left) stops.push_back(word(4, 6));
    std::string whole;
    for (const auto& part : shown({text}, stops)) whole += part;
    for (int cutting = 0; cutting < 8; ++cutting) {
      Shown pieces(1);
      for (const char byte : text) {
        if (below(2) == 0) pieces.emplace_back();
        pieces.back() += byte;
      }
      std::string so_far;
      for (const auto& part : shown(pieces, stops)) {
        so_far += part;
        ASSERT_TRUE(whole.starts_with(so_far)) << round;  // never part of a stop string
        ASSERT_TRUE(text::is_valid_utf8(so_far)) << round;
      }
      ASSERT_EQ(so_far, whole) << round;
    }
  }
}

}  // namespace
}  // namespace kvfs::sched

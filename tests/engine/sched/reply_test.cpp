#include "engine/sched/reply.h"

#include <gtest/gtest.h>

#include <array>

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

}  // namespace
}  // namespace kvfs::sched

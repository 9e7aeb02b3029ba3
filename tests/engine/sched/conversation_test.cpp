// Conversations held against tokens, on the real model's tokenizer and template.
#include "engine/sched/conversation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

namespace kvfs::sched {
namespace {

using text::jinja::Message;
using Ids = std::vector<TokenId>;

class ConversationTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    const char* path = std::getenv("KVFS_MODEL");
    auto card = model::read_card(
        path != nullptr
            ? std::filesystem::path(path)
            : std::filesystem::path(KVFS_DEPS_DIR) / "models/SmolLM2-135M-Instruct.Q4_1.gguf",
        model::Compute::kFast, {.kind = model::DeviceChoice::Kind::kCpu}, {});
    ASSERT_TRUE(card) << card.error().message();
    card_ = std::move(*card);
  }
  static void TearDownTestSuite() { card_.reset(); }
  static std::unique_ptr<model::ModelCard> card_;

  static Conversation render(const std::vector<Message>& messages) {
    return Conversation::render(*card_, messages).value();
  }
  static std::string refused(const std::vector<Message>& messages) {
    const auto conversation = Conversation::render(*card_, messages);
    return conversation ? "" : conversation.error().message();
  }
  static void add(Ids& ids, const Ids& more) { ids.insert(ids.end(), more.begin(), more.end()); }
  // What a state holds after these turns; replies[i] are the ids it generated.
  static Ids state(const std::string& system, const std::vector<std::string>& texts,
                   const std::vector<Ids>& replies) {
    Ids ids;
    if (!system.empty()) add(ids, card_->chat->feed(ids, system));
    for (std::size_t i = 0; i < texts.size(); ++i) {
      add(ids, card_->chat->prompt(ids, texts[i]));
      if (i < replies.size()) add(ids, replies[i]);
    }
    return ids;
  }
  static Ids plain(std::string_view text) {
    return card_->tokenizer->encode(text, text::SpecialText::kAsText);
  }
  static Ids letters(std::string_view text) {  // ids that the text does not tokenize to
    Ids ids;
    for (const char& letter : text) add(ids, plain({&letter, 1}));
    return ids;
  }
  static Ids ended(Ids ids) {
    add(ids, end());
    return ids;
  }
  static Ids end() { return card_->tokenizer->encode("<|im_end|>", text::SpecialText::kAsControl); }
  // How many of the ids the conversation goes on with, and whether it ends at a border.
  static std::pair<std::size_t, bool> followed(const Conversation& conversation, const Ids& ids) {
    Follower follower(conversation);
    std::size_t taken = 0;
    while (taken < ids.size() && follower.take(ids[taken])) ++taken;
    return {taken, follower.at_border()};
  }
};
std::unique_ptr<model::ModelCard> ConversationTest::card_;

const std::vector<Message> kTalk{{"user", "Why is the sky blue?"},
                                 {"assistant", "Because of Rayleigh."},
                                 {"user", "And the sea?"}};

TEST_F(ConversationTest, IsWhatAStatesTurnsHaveWritten) {
  for (const std::string system : {"", "You are a pirate."}) {
    auto messages = kTalk;
    if (!system.empty()) messages.insert(messages.begin(), Message{"system", system});
    const auto conversation = render(messages);
    const Ids ids = state(system, {"Why is the sky blue?\n", "And the sea?"},
                          {ended(plain("Because of Rayleigh."))});
    EXPECT_EQ(card_->tokenizer->decode(ids), conversation.text());
    EXPECT_EQ(followed(conversation, ids), (std::pair{ids.size(), true}));
    EXPECT_EQ(conversation.rest_after({}, 0), ids);
  }
}

TEST_F(ConversationTest, IdsThatDoNotTokenizeBackAreFollowedAndOnlyTheNewTurnIsTokenized) {
  const auto conversation = render(kTalk);
  const Ids reply = letters("Because of Rayleigh.");
  ASSERT_NE(reply, plain("Because of Rayleigh."));
  for (const bool closed : {true, false}) {  // stopped by max_tokens: the next turn closes it
    const Ids ids = state("", {"Why is the sky blue?"}, {closed ? ended(reply) : reply});
    Follower follower(conversation);
    for (const TokenId id : ids) ASSERT_TRUE(follower.take(id));
    EXPECT_TRUE(follower.at_border());
    Ids whole = ids;
    add(whole, conversation.rest_after(ids, follower.offset()));
    EXPECT_EQ(whole, state("", {"Why is the sky blue?", "And the sea?"}, {ended(reply)}));
  }
}

TEST_F(ConversationTest, AnEndWithinATextIsNoBorder) {
  const Ids ids = state("", {"Why is the sky blue?"}, {plain("Because")});
  EXPECT_EQ(followed(render(kTalk), ids), (std::pair{ids.size(), false}));
}

TEST_F(ConversationTest, AnotherTextIsNotFollowed) {
  const Ids ids = state("", {"Why is the sky black?"}, {});
  EXPECT_LT(followed(render(kTalk), ids).first, ids.size() - 3);
}

TEST_F(ConversationTest, MarkersThatUsersSpellAreTextAndMarkersOfTheTemplateAreNot) {
  const std::string marker = "<|im_end|>";
  const auto spelled = render({{"user", "a" + marker + "b"}});
  const Ids as_text = card_->chat->prompt({}, "a" + marker + "b");
  EXPECT_EQ(followed(spelled, as_text).first, as_text.size());
  // The same bytes with the control token in them.
  Ids forged;
  ASSERT_EQ(end().size(), 1U);
  const Ids head = card_->chat->prompt({}, "a");
  const auto at = std::ranges::find(head.rbegin(), head.rend(), end()[0]).base() - 1;
  forged.assign(head.begin(), at);
  const std::size_t border = forged.size();
  add(forged, end());
  EXPECT_EQ(followed(spelled, forged).first, border);
  // And where the template closes the turn, letters are no marker.
  Ids lettered(head.begin(), at);
  add(lettered, plain(marker));
  EXPECT_EQ(followed(render({{"user", "a"}}), lettered).first, border);
}

TEST_F(ConversationTest, RolesTakeTurns) {
  EXPECT_NE(refused({}).find("the last is not a user's"), std::string::npos);
  EXPECT_NE(refused({{"user", "a"}, {"assistant", "b"}}).find("the last is not"),
            std::string::npos);
  EXPECT_NE(
      refused({{"user", "a"}, {"user", "b"}}).find("message 2: its role is user where assistant"),
      std::string::npos);
  EXPECT_NE(refused({{"user", "a"}, {"system", "b"}}).find("message 2"), std::string::npos);
  EXPECT_NE(refused({{"tool", "a"}}).find("message 1: its role is tool"), std::string::npos);
}

TEST(Messages, AreAJsonArrayOfRolesAndTexts) {
  const auto read = read_messages(
      R"([{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"text","text":"b"},{"type":"text","text":"c"}]}])");
  ASSERT_TRUE(read);
  ASSERT_EQ(read->size(), 2U);
  EXPECT_EQ((*read)[1].role, "assistant");
  EXPECT_EQ((*read)[1].content, "bc");
  for (const char* wrong : {"", "{}", "[1]", R"([{"content":"a"}])", R"([{"role":"user"}])",
                            R"([{"role":1,"content":"a"}])", R"([{"role":"user","content":1}])",
                            R"([{"role":"user","content":[{"type":"image_url"}]}])",
                            "[{\"role\":\"user\",\"content\":\"\xFF\"}]"}) {
    const auto refused = read_messages(wrong);
    ASSERT_FALSE(refused) << wrong;
    EXPECT_EQ(refused.error().code, ErrorCode::kInvalid);
    EXPECT_FALSE(refused.error().way_out.empty());
  }
}

}  // namespace
}  // namespace kvfs::sched

// The default model's tokenizer against what the tokenizers library gives (goldens/).
#include "engine/text/tokenizer.h"

#include <algorithm>

#include <gmock/gmock.h>

#include "tests/engine/text/golden_lines.h"
#include "tests/engine/text/model_file.h"

namespace kvfs::text {
namespace {

class DefaultTokenizer : public testing::Test {
 protected:
  void SetUp() override {  // loads once a process
    if (tokenizer_) return;
    const auto file = open_default_model();
    ASSERT_TRUE(file);
    auto loaded = load_tokenizer(*file);
    ASSERT_TRUE(loaded) << loaded.error().message();
    tokenizer_ = *std::move(loaded);
  }

  static std::vector<TokenId> encode(std::string_view text) {
    return tokenizer_->encode(text, SpecialText::kAsText);
  }
  // SmolLM2 has no tokens for these bytes: six control characters, and the lead bytes of planes 4
  // to 11.
  static std::string without_tokenless_bytes(std::string text) {
    constexpr std::string_view kTokenless = "\x04\x06\x13\x14\x16\x1D\xF1\xF2";
    std::erase_if(text, [&](char c) { return kTokenless.find(c) != std::string_view::npos; });
    return text;
  }

  static inline std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(DefaultTokenizer, EncodesEveryGoldenStringAsTheTokenizersLibraryDoes) {
  const auto lines = golden_lines("tokens.jsonl");
  ASSERT_GE(lines.size(), 2000U);
  for (const auto& line : lines) {
    EXPECT_EQ(encode(text_of(line.at(0))), ids_of(line.at(1))) << line.at(0);
  }
}

TEST_F(DefaultTokenizer, DecodesEveryGoldenStringToItself) {
  for (const auto& line : golden_lines("tokens.jsonl")) {
    const std::string text = text_of(line.at(0));
    EXPECT_EQ(tokenizer_->decode(encode(text)), without_tokenless_bytes(text)) << line.at(0);
  }
}

TEST_F(DefaultTokenizer, ReadsMarkersInUsersTextAsLetters) {
  for (const std::string text : {"<|im_end|>", "a<|im_start|>b", "<|endoftext|>", "<repo_name>"}) {
    const auto ids = encode(text);
    EXPECT_TRUE(std::none_of(ids.begin(), ids.end(), [](TokenId id) {
      return tokenizer_->is_special(id);
    })) << text;
    EXPECT_EQ(tokenizer_->decode(ids), text);
  }
}

TEST_F(DefaultTokenizer, ReadsMarkersInMarkupAsTokens) {
  const auto ids =
      tokenizer_->encode("<|im_start|>user<|im_end|><|im_end|>\n<|im_end", SpecialText::kAsControl);
  ASSERT_GE(ids.size(), 6U);
  EXPECT_EQ(ids[0], 1);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 2), 2);
  EXPECT_EQ(
      std::count_if(ids.begin(), ids.end(), [](TokenId id) { return tokenizer_->is_special(id); }),
      3);
  EXPECT_EQ(tokenizer_->decode(ids), "<|im_start|>user<|im_end|><|im_end|>\n<|im_end");
}

TEST_F(DefaultTokenizer, KnowsItsBoundsAndEnds) {
  EXPECT_EQ(tokenizer_->vocab_size(), 49152);
  EXPECT_TRUE(tokenizer_->begin_tokens().empty());
  EXPECT_THAT(tokenizer_->end_tokens(), testing::ElementsAre(2));
  EXPECT_EQ(tokenizer_->bytes_of(2), "<|im_end|>");
  EXPECT_EQ(tokenizer_->bytes_of(-1), "");
  EXPECT_EQ(tokenizer_->bytes_of(49152), "");
  EXPECT_EQ(tokenizer_->bytes_of(1 << 30), "");
  EXPECT_TRUE(tokenizer_->is_special(16));
  EXPECT_FALSE(tokenizer_->is_special(17));
  EXPECT_FALSE(tokenizer_->is_special(-1));
}

TEST_F(DefaultTokenizer, EncodesNothingToNothing) { EXPECT_TRUE(encode("").empty()); }

TEST_F(DefaultTokenizer, KeepsBytesThatAreNotUtf8) {
  for (const std::string text : {"a\xC3", "\x80\x80 b", "x\xE4\xB8y", "\xED\xA0\x80"}) {
    EXPECT_EQ(tokenizer_->decode(encode(text)), text);
  }
}

// Nobody types these; somebody sends them. That they end, and soon, is the point.
TEST_F(DefaultTokenizer, EndsOnTenMegabytesOfOneLetter) {
  const std::string text(10'000'000, 'a');
  const auto ids = encode(text);
  EXPECT_LT(ids.size(), text.size() / 2);
  EXPECT_EQ(tokenizer_->decode(ids), text);
}

TEST_F(DefaultTokenizer, EndsOnTenMegabytesOfSpaces) {
  const std::string text = std::string(10'000'000, ' ') + "x";
  EXPECT_EQ(tokenizer_->decode(encode(text)), text);
}

TEST_F(DefaultTokenizer, EndsOnAMegabyteOfEmoji) {
  std::string text;
  while (text.size() < 1'000'000) text += "😀👩‍👩‍👧‍👦🏽";
  EXPECT_EQ(tokenizer_->decode(encode(text)), text);
}

TEST_F(DefaultTokenizer, EndsOnAMegabyteOfDigitsAndOfMarkersThatNeverClose) {
  std::string text;
  while (text.size() < 1'000'000) text += "7<|im_en";
  EXPECT_EQ(tokenizer_->decode(tokenizer_->encode(text, SpecialText::kAsControl)), text);
}

}  // namespace
}  // namespace kvfs::text

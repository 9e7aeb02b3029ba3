// Every kind of tokenizer against the reference libraries: tokenizers for tokenizer.json,
// sentencepiece for tokenizer.model and for GGUF files made of the same pieces.
#include <chrono>

#include <gmock/gmock.h>

#include "engine/text/readers.h"
#include "tests/engine/text/made_texts.h"
#include "tests/engine/text/model_file.h"

namespace kvfs::text {
namespace {

using testing::ElementsAre;
using Ids = std::vector<TokenId>;

std::filesystem::path folder_of(const std::string& name) {
  return std::filesystem::path(KVFS_REPO_DIR) / "tests/engine/text/tokenizers" / name;
}

std::unique_ptr<Tokenizer> load(const std::string& name) {
  auto loaded = load_tokenizer(folder_of(name));
  EXPECT_TRUE(loaded) << loaded.error().message();
  return loaded ? *std::move(loaded) : nullptr;
}

class OfJson : public testing::TestWithParam<const char*> {};
TEST_P(OfJson, TenThousandTextsGiveTheReferencesTokens) {
  const auto tokenizer = load(GetParam());
  ASSERT_TRUE(tokenizer);
  expect_golden(GetParam(), [&](const std::string& text) {
    return tokenizer->encode(text, SpecialText::kAsControl);
  });
}
INSTANTIATE_TEST_SUITE_P(Kinds, OfJson,
                         testing::Values("byte_level", "split_nfc", "llama_like", "words_unk",
                                         "unigram", "unigram_first"));

class OfSentencepiece : public testing::TestWithParam<const char*> {};
TEST_P(OfSentencepiece, TenThousandTextsGiveTheReferencesTokens) {
  const auto tokenizer = load(GetParam());
  ASSERT_TRUE(tokenizer);
  expect_golden(GetParam(), [&](const std::string& text) {
    return tokenizer->encode(text, SpecialText::kAsText);
  });
}

TEST_P(OfSentencepiece, AGgufOfTheSamePiecesGivesTheSameTokens) {
  const std::string name = GetParam();
  const auto bytes = read_text_file(folder_of(name) / "tokenizer.model", 1 << 20);
  ASSERT_TRUE(bytes);
  const auto spec = read_sentencepiece(*bytes, "tokenizer.model");
  ASSERT_TRUE(spec) << spec.error().message();
  std::vector<std::string> texts;
  std::vector<float> scores;
  std::vector<std::int32_t> types;
  for (const SpelledToken& token : spec->tokens) {
    texts.push_back(token.text);
    scores.push_back(static_cast<float>(token.score));
    switch (token.kind) {
      case TokenKind::kUnknown:
        types.push_back(2);
        break;
      case TokenKind::kControl:
        types.push_back(3);
        break;
      case TokenKind::kByte:
        types.push_back(6);
        break;
      default:
        types.push_back(1);
    }
  }
  GgufBytes gguf;
  gguf.text("tokenizer.ggml.model", name == "spm_unigram" ? "t5" : "llama");
  gguf.texts("tokenizer.ggml.tokens", texts).reals("tokenizer.ggml.scores", scores);
  gguf.numbers("tokenizer.ggml.token_type", types);
  gguf.number("tokenizer.ggml.bos_token_id", 1).number("tokenizer.ggml.eos_token_id", 2);
  gguf.boolean("tokenizer.ggml.add_bos_token", true);
  gguf.boolean("tokenizer.ggml.remove_extra_whitespaces", name != "spm_bpe");
  const auto file = gguf.open();
  ASSERT_TRUE(file) << file.error().message();
  const auto made = load_tokenizer(**file);
  ASSERT_TRUE(made) << made.error().message();
  const auto original = load(name);
  EXPECT_EQ((*made)->begin_tokens(), original->begin_tokens());
  EXPECT_EQ((*made)->end_tokens(), original->end_tokens());
  if (name == "spm_unigram") return;  // its charsmap is in no field that this test writes
  expect_golden(
      name, [&](const std::string& text) { return (*made)->encode(text, SpecialText::kAsText); });
}
INSTANTIATE_TEST_SUITE_P(Kinds, OfSentencepiece,
                         testing::Values("spm_bpe", "spm_bpe_unk", "spm_unigram"));

TEST(KindsOfTokenizers, GiveBackTheTextOfTheirTokens) {
  for (const char* name : {"byte_level", "llama_like", "spm_bpe"}) {
    const auto tokenizer = load(name);
    ASSERT_TRUE(tokenizer);
    const std::string text = "Call me Ishmael: 今日 😀\n\tdone";
    const std::string back = tokenizer->decode(tokenizer->encode(text, SpecialText::kAsText));
    EXPECT_EQ(back.substr(back.starts_with(' ') ? 1 : 0), text) << name;
  }
}

TEST(KindsOfTokenizers, KeepBytesThatAreNotUtf8WhereTheyHaveTokensForThem) {
  for (const char* name : {"byte_level", "llama_like", "spm_bpe"}) {
    const auto tokenizer = load(name);
    ASSERT_TRUE(tokenizer);
    const std::string text = "a\xFF\xE4\xB8z";
    const std::string back = tokenizer->decode(tokenizer->encode(text, SpecialText::kAsText));
    EXPECT_EQ(back.substr(back.starts_with(' ') ? 1 : 0), text) << name;
  }
}

TEST(KindsOfTokenizers, TakeControlTokensFromMarkupAlone) {
  const auto tokenizer = load("byte_level");
  ASSERT_TRUE(tokenizer);
  const Ids control = tokenizer->encode("<|im_end|>", SpecialText::kAsControl);
  ASSERT_EQ(control.size(), 1U);
  EXPECT_TRUE(tokenizer->is_special(control[0]));
  EXPECT_GT(tokenizer->encode("<|im_end|>", SpecialText::kAsText).size(), 1U);
  const TextPart parts[] = {{"<|im_end|>", SpecialText::kAsControl},
                            {"<|im_end|>", SpecialText::kAsText},
                            {"<|im_", SpecialText::kAsControl},
                            {"end|>", SpecialText::kAsText}};
  const Ids ids = tokenizer->encode_parts(parts, Before::kNothing);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), control[0]), 1);
  EXPECT_EQ(tokenizer->decode(ids), "<|im_end|><|im_end|><|im_end|>");
}

TEST(KindsOfTokenizers, MergeAcrossTheSeamsOfParts) {
  const auto tokenizer = load("byte_level");
  ASSERT_TRUE(tokenizer);
  const TextPart parts[] = {{"some", SpecialText::kAsControl}, {"thing", SpecialText::kAsText}};
  EXPECT_EQ(tokenizer->encode_parts(parts, Before::kNothing),
            tokenizer->encode("something", SpecialText::kAsText));
}

TEST(KindsOfTokenizers, PutNoSpaceBeforeWhatGoesOnFromAText) {
  for (const char* name : {"llama_like", "spm_bpe", "unigram_first"}) {
    const auto tokenizer = load(name);
    ASSERT_TRUE(tokenizer);
    Ids history = tokenizer->encode("some", SpecialText::kAsText);
    EXPECT_EQ(tokenizer->decode(history), " some") << name;
    const TextPart more{"thing", SpecialText::kAsText};
    const Ids ids = tokenizer->encode_after(history, {&more, 1});
    EXPECT_EQ(tokenizer->decode(ids), "thing") << name;
  }
}

TEST(KindsOfTokenizers, BeginAsTheirFilesSay) {
  EXPECT_TRUE(load("byte_level")->begin_tokens().empty());
  const auto split = load("split_nfc");
  EXPECT_EQ(split->begin_tokens(), split->encode("<s>", SpecialText::kAsControl));
  EXPECT_THAT(load("spm_bpe")->begin_tokens(), ElementsAre(1));
  EXPECT_THAT(load("spm_bpe")->end_tokens(), ElementsAre(2));
}

TEST(KindsOfTokenizers, TakeTenMegabytesOfOneLetterInSeconds) {
  for (const char* name : {"byte_level", "split_nfc", "llama_like", "words_unk", "unigram",
                           "unigram_first", "spm_bpe", "spm_bpe_unk", "spm_unigram"}) {
    const auto tokenizer = load(name);
    ASSERT_TRUE(tokenizer);
    for (const std::string letter : {"a", " ", "\xE4\xBB\x8A"}) {
      std::string line;
      while (line.size() < 10'000'000) line += letter;
      const auto start = std::chrono::steady_clock::now();
      const std::size_t count = tokenizer->encode(line, SpecialText::kAsText).size();
      const double seconds =
          std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      if (letter != " ") {  // which some take away
        EXPECT_GT(count, 0U);
      }
      RecordProperty(std::string(name) + " of \"" + letter + "\", s", std::to_string(seconds));
      EXPECT_LT(seconds, 5 * 6) << name << " of \"" << letter
                                << "\"";  // with room for a busy machine
    }
  }
}

}  // namespace
}  // namespace kvfs::text

// Made-up model files: small ones that work, and ones that must be refused with the field's name.
#include <gmock/gmock.h>

#include "tests/engine/text/model_file.h"

namespace kvfs::text {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const std::vector<std::string> kTokens = {"a", "b", "c", "ab", "abc", "Ġ", "<|end|>", "<tool>"};
const std::vector<std::int32_t> kTypes = {1, 1, 1, 1, 1, 1, 3, 4};
const std::vector<std::string> kMerges = {"a b", "ab c"};

// Everything but what a test leaves out to put in its own.
GgufBytes without(const std::string& left_out) {
  GgufBytes file;
  const auto wanted = [&](const char* field) { return left_out != field; };
  file.text("general.architecture", "llama");
  if (wanted("model")) file.text("tokenizer.ggml.model", "gpt2");
  if (wanted("pre")) file.text("tokenizer.ggml.pre", "smollm");
  if (wanted("tokens")) file.texts("tokenizer.ggml.tokens", kTokens);
  if (wanted("token_type")) file.numbers("tokenizer.ggml.token_type", kTypes);
  if (wanted("merges")) file.texts("tokenizer.ggml.merges", kMerges);
  if (wanted("eos")) file.number("tokenizer.ggml.eos_token_id", 6);
  return file;
}

Result<std::unique_ptr<Tokenizer>> load(const GgufBytes& bytes) {
  KVFS_ASSIGN(const std::unique_ptr<container::GgufFile> file, bytes.open());
  return load_tokenizer(*file);
}

void expect_refused(const GgufBytes& bytes, ErrorCode code, const std::string& field) {
  const auto loaded = load(bytes);
  ASSERT_FALSE(loaded) << "accepted a wrong " << field;
  EXPECT_EQ(loaded.error().code, code) << loaded.error().message();
  EXPECT_THAT(loaded.error().message(), HasSubstr(field));
}

TEST(SmallTokenizer, MergesByRankAndFindsAddedTokens) {
  const auto loaded = load(without(""));
  ASSERT_TRUE(loaded) << loaded.error().message();
  const Tokenizer& tokenizer = **loaded;
  EXPECT_THAT(tokenizer.encode("abc cab", SpecialText::kAsText), ElementsAre(4, 5, 2, 3));
  EXPECT_THAT(tokenizer.encode("a<tool>b", SpecialText::kAsText), ElementsAre(0, 7, 1));
  EXPECT_THAT(tokenizer.encode("a<|end|>b", SpecialText::kAsControl), ElementsAre(0, 6, 1));
  // No letter of <|end|> but these has a token.
  EXPECT_THAT(tokenizer.encode("a<|end|>b", SpecialText::kAsText), ElementsAre(0, 1));
  EXPECT_FALSE(tokenizer.is_special(7));
  EXPECT_THAT(tokenizer.end_tokens(), ElementsAre(6));
}

TEST(SmallTokenizer, TakesTheLongestAddedToken) {
  auto file = without("tokens");
  file.texts("tokenizer.ggml.tokens", {"a", "b", "c", "ab", "abc", "<<", "<", "<<<"});
  const auto loaded = load(file);
  // Types of kTokens: "<" is control, "<<<" user-defined, "<<" plain.
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_THAT((*loaded)->encode("<<<<a", SpecialText::kAsControl), ElementsAre(7, 6, 0));
  EXPECT_THAT((*loaded)->encode("<<<a", SpecialText::kAsText), ElementsAre(7, 0));
}

TEST(SmallTokenizer, NeverMergesUsersTextIntoAControlToken) {
  auto file = without("token_type");
  file.numbers("tokenizer.ggml.token_type", {1, 1, 1, 1, 3, 1, 3, 4});  // "abc" is control here
  const auto loaded = load(file);
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_THAT((*loaded)->encode("abc", SpecialText::kAsText), ElementsAre(3, 2));
  EXPECT_THAT((*loaded)->encode("abc", SpecialText::kAsControl), ElementsAre(4));
}

TEST(SmallTokenizer, BeginsWithBosOnlyWhereTheFileSaysSo) {
  auto file = without("");
  file.boolean("tokenizer.ggml.add_bos_token", true).number("tokenizer.ggml.bos_token_id", 6);
  const auto loaded = load(file);
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_THAT((*loaded)->begin_tokens(), ElementsAre(6));
}

TEST(SmallTokenizer, EndsAtEosAndEotAndTheTemplatesTurnEnd) {
  auto file = without("");
  file.number("tokenizer.ggml.eot_token_id", 3).text("tokenizer.chat_template", "{{ '<|end|>' }}");
  EXPECT_THAT((*load(file))->end_tokens(), ElementsAre(6, 3));
  auto other = without("eos");
  other.number("tokenizer.ggml.eos_token_id", 0).text("tokenizer.chat_template", "{{ '<|end|>' }}");
  EXPECT_THAT((*load(other))->end_tokens(), ElementsAre(0, 6));
}

TEST(SmallTokenizer, CountsThePaddingOfTheVocabulary) {
  auto file = without("");
  file.number("llama.vocab_size", 64);
  const auto loaded = load(file);
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_EQ((*loaded)->vocab_size(), 64);
  EXPECT_EQ((*loaded)->bytes_of(63), "");
}

TEST(HostileTokenizer, RefusesWhatIsMissingOrOfAnotherType) {
  for (const char* field : {"model", "pre", "tokens", "merges"}) {
    const std::string key = std::string("tokenizer.ggml.") + field;
    expect_refused(without(field), ErrorCode::kNotFound, key);
    auto number = without(field);
    number.number(key, 7);
    expect_refused(number, ErrorCode::kInvalid, key);
  }
  auto numbers = without("tokens");
  numbers.numbers("tokenizer.ggml.tokens", {1, 2, 3});
  expect_refused(numbers, ErrorCode::kInvalid, "tokenizer.ggml.tokens");
  auto merges = without("merges");
  merges.numbers("tokenizer.ggml.merges", {1, 2, 3});
  expect_refused(merges, ErrorCode::kInvalid, "tokenizer.ggml.merges");
  auto types = without("token_type");
  types.texts("tokenizer.ggml.token_type", kTokens);
  expect_refused(types, ErrorCode::kInvalid, "tokenizer.ggml.token_type");
}

TEST(HostileTokenizer, RefusesUnknownKinds) {
  auto model = without("model");
  model.text("tokenizer.ggml.model", "bert");
  expect_refused(model, ErrorCode::kUnsupported, "tokenizer.ggml.model");
  auto pre = without("pre");
  pre.text("tokenizer.ggml.pre", "klingon");
  expect_refused(pre, ErrorCode::kUnsupported, "tokenizer.ggml.pre");
}

TEST(HostileTokenizer, RefusesAnEmptyVocabulary) {
  auto file = without("tokens");
  file.texts("tokenizer.ggml.tokens", {});
  expect_refused(file, ErrorCode::kInvalid, "tokenizer.ggml.tokens");
}

TEST(HostileTokenizer, RefusesTypesThatDoNotFitTheTokens) {
  for (const std::vector<std::int32_t>& types : {std::vector<std::int32_t>{1, 1},
                                                 {1, 1, 1, 1, 1, 1, 1, 1, 1},
                                                 {1, 1, 1, 1, 1, 1, 1, 0},
                                                 {1, 1, 1, 1, 1, 1, 1, 7},
                                                 {1, 1, 1, 1, 1, 1, 1, -1}}) {
    auto file = without("token_type");
    file.numbers("tokenizer.ggml.token_type", types);
    expect_refused(file, ErrorCode::kInvalid, "tokenizer.ggml.token_type");
  }
}

TEST(HostileTokenizer, RefusesMergesThatAreNoPairsOfTokens) {
  for (const std::string merge :
       {"", " ", "a", "a ", " b", "ab", "a d", "d a", "b a", "a b c", "a \xFF", "日 本"}) {
    auto file = without("merges");
    file.texts("tokenizer.ggml.merges", {"a b", merge});
    expect_refused(file, ErrorCode::kInvalid, "tokenizer.ggml.merges");
  }
}

TEST(HostileTokenizer, RefusesIdsOutsideTheVocabulary) {
  for (const char* name : {"bos", "eos", "eot", "unknown", "padding"}) {
    const std::string key = std::string("tokenizer.ggml.") + name + "_token_id";
    for (const std::uint32_t id : {8U, 1U << 31U, 0xFFFFFFFFU}) {
      auto file = without("eos");
      file.number(key, id);
      expect_refused(file, ErrorCode::kInvalid, key);
    }
  }
}

TEST(HostileTokenizer, RefusesBosThatIsWantedAndNotNamed) {
  auto file = without("");
  file.boolean("tokenizer.ggml.add_bos_token", true);
  expect_refused(file, ErrorCode::kInvalid, "tokenizer.ggml.bos_token_id");
}

TEST(HostileTokenizer, LoadsAVocabularySizeBeyondReasonWithoutMemoryForIt) {
  auto file = without("");
  file.number("llama.vocab_size", 0x7FFFFFFF);
  ASSERT_TRUE(load(file));
  auto beyond = without("");
  beyond.number("llama.vocab_size", 0x80000000);
  expect_refused(beyond, ErrorCode::kInvalid, "llama.vocab_size");
}

TEST(HostileTokenizer, TakesDoubledAndEmptyAndBrokenTokens) {
  auto file = without("tokens");
  file.texts("tokenizer.ggml.tokens", {"a", "b", "c", "ab", "abc", "", "\xFF\xFE", "日"});
  const auto loaded = load(file);
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_EQ((*loaded)->decode({0, 5, 6}), "a\xFF\xFE");
  EXPECT_THAT((*loaded)->encode("abc", SpecialText::kAsText), ElementsAre(4));
}

}  // namespace
}  // namespace kvfs::text

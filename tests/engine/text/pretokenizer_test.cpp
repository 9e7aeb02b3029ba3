// Pieces and character classes against what the tokenizers library gives (goldens/).
#include "engine/text/pretokenizer.h"

#include <array>

#include "engine/text/utf8.h"
#include "tests/engine/text/golden_lines.h"

namespace kvfs::text {
namespace {

std::vector<std::size_t> lengths_of(const PreTokenizer& pre, std::string_view text) {
  std::vector<std::size_t> lengths;
  PreTokenizer::Pieces pieces(pre, text);
  for (std::string_view piece; pieces.next(piece);) lengths.push_back(piece.size());
  return lengths;
}

std::string utf8_of(std::uint32_t code) {
  const auto byte = [](std::uint32_t value) { return static_cast<char>(value); };
  const auto tail = [&](int shift) { return byte(0x80U | (code >> shift & 0x3FU)); };
  if (code < 0x80) return {byte(code)};
  if (code < 0x800) return {byte(0xC0U | code >> 6U), tail(0)};
  if (code < 0x10000) return {byte(0xE0U | code >> 12U), tail(6), tail(0)};
  return {byte(0xF0U | code >> 18U), tail(12), tail(6), tail(0)};
}

PreTokenizer named(const std::string& name) {
  auto pre = PreTokenizer::named(name);
  EXPECT_TRUE(pre) << pre.error().message();
  return *std::move(pre);
}

TEST(PreTokenizer, CutsGoldenTextsWhereTheTokenizersLibraryDoes) {
  std::string name;
  std::optional<PreTokenizer> pre;
  for (const auto& line : golden_lines("pieces.jsonl")) {
    if (text_of(line.at(0)) != name) pre = named(name = text_of(line.at(0)));
    const auto want = boost::json::value_to<std::vector<std::size_t>>(line.at(2));
    EXPECT_EQ(lengths_of(*pre, text_of(line.at(1))), want) << name << ' ' << line.at(1);
  }
}

// "a" joins letters, "1" numbers, "!" all else but spaces; what makes a second piece is not its
// kind.
TEST(PreTokenizer, ClassesCodePointsAsTheTokenizersLibraryDoesAtEveryBoundary) {
  const PreTokenizer gpt2 = named("gpt-2");
  const PreTokenizer smollm = named("smollm");
  const auto lines = golden_lines("classes.json");
  ASSERT_EQ(lines.size(), 1U);
  for (const auto& run : lines[0].as_array()) {
    const std::string want = text_of(run.at(2));
    for (const auto& edge : {run.at(0), run.at(1)}) {
      const auto code = static_cast<std::uint32_t>(edge.as_int64());
      const std::string letter = utf8_of(code);
      const auto joins = [&](const PreTokenizer& pre, const char* probe) {
        return lengths_of(pre, probe + letter).size() == 1;
      };
      const char kind = joins(gpt2, "a")   ? 'L'
                        : joins(gpt2, "1") ? 'N'
                        : joins(gpt2, "!") ? 'O'
                                           : 'S';
      // A digit stands alone whatever it follows.
      const bool digit = kind != 'S' && !joins(smollm, kind == 'L' ? "a" : kind == 'O' ? "!" : "1");
      EXPECT_EQ((std::string{kind, digit ? 'D' : '-'}), want) << "U+" << std::hex << code;
    }
  }
}

TEST(PreTokenizer, CutsDigitsApartBeforeAllElse) {
  // The space before a digit is a piece of its own: it never joins the digit.
  EXPECT_EQ(lengths_of(named("smollm"), "in 1984,  x"),
            (std::vector<std::size_t>{2, 1, 1, 1, 1, 1, 1, 1, 2}));
}

TEST(PreTokenizer, NamesTheFieldAndTheKnownOnesWhenItKnowsNot) {
  const auto pre = PreTokenizer::named("klingon");
  ASSERT_FALSE(pre);
  EXPECT_EQ(pre.error().code, ErrorCode::kUnsupported);
  const std::string message = pre.error().message();
  for (const char* part :
       {"tokenizer.ggml.pre", "klingon", "smollm", "gpt-2", "llama-bpe", "qwen2"}) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  }
}

}  // namespace
}  // namespace kvfs::text

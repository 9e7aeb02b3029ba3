// tokenizer.json and tokenizer.model files that were made to hurt: each is refused with the file,
// the field and the reason, soon, and without memory that the file's size does not justify.
#include <chrono>
#include <cstring>
#include <fstream>

#include <gmock/gmock.h>
#include <unistd.h>

#include "engine/text/chat_template.h"
#include "engine/text/readers.h"

namespace kvfs::text {
namespace {

using testing::HasSubstr;

std::string repeated(const std::string& part, std::size_t times) {
  std::string out;
  for (std::size_t i = 0; i < times; ++i) out += part;
  return out;
}

// A folder of this process with one file or more, removed at the end.
class Folder {
 public:
  Folder()
      : path_(std::filesystem::temp_directory_path() / ("kvfs-hf-" + std::to_string(getpid()))) {
    std::filesystem::create_directories(path_);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  Folder& put(const std::string& name, const std::string& text) {
    std::ofstream(path_ / name, std::ios::binary) << text;
    return *this;
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

const std::string kModel =
    R"("model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]})";

struct Wrong {
  std::string json, place, why;
  ErrorCode code = ErrorCode::kInvalid;
};

std::vector<Wrong> wrong_files() {
  const auto model = [](const std::string& inside) { return "{\"model\":{" + inside + "}}"; };
  const auto with = [](const std::string& part) { return "{" + part + "," + kModel + "}"; };
  const auto bpe = [&](const std::string& vocab, const std::string& merges) {
    return model(R"("type":"BPE","vocab":)" + vocab + R"(,"merges":)" + merges);
  };
  const auto unigram = [&](const std::string& vocab, const std::string& unk) {
    return model(R"("type":"Unigram","vocab":)" + vocab + R"(,"unk_id":)" + unk);
  };
  const ErrorCode unknown = ErrorCode::kUnsupported;
  return {
      {"", "tokenizer.json", "no JSON"},
      {"{", "tokenizer.json", "no JSON"},
      {"[]", "tokenizer.json: ", "no object"},
      {repeated("[", 1'000'000), "tokenizer.json", "no JSON"},
      {repeated("{\"a\":", 1'000'000), "tokenizer.json", "no JSON"},
      {"{}", "model", "missing"},
      {"{\"model\":7}", "model", "no object"},
      {model(R"("type":"WordPiece","vocab":{})"), "model.type", "WordPiece", unknown},
      {model(R"("type":"BPE","vocab":[],"merges":[])"), "model.vocab", "no object"},
      {bpe("{}", "[]"), "model.vocab", "no tokens"},
      {bpe(R"({"a":4000000000})", "[]"), "model.vocab.a", "id 4000000000"},
      {bpe(R"({"a":-1})", "[]"), "model.vocab.a", "id -1"},
      {bpe(R"({"a":1.5})", "[]"), "model.vocab.a", "no integer"},
      {bpe(R"({"a":"0"})", "[]"), "model.vocab.a", "no integer"},
      {bpe(R"({"a":0,"b":0})", "[]"), "model.vocab.b", "another token's"},
      {bpe(R"({"a":0})", R"(["a"])"), "model.merges.0", "no pair"},
      {bpe(R"({"a":0})", R"(["a c"])"), "model.merges.0", "joins what is not a token"},
      {bpe(R"({"a":0,"b":1})", R"([["a","b"]])"), "model.merges.0", "makes what is not a token"},
      {bpe(R"({"a":0})", R"([7])"), "model.merges.0", "no string"},
      {bpe(R"({"a":0})", R"({})"), "model.merges", "no list"},
      {model(R"("type":"BPE","vocab":{"a":0},"merges":[],"dropout":0.5)"), "model.dropout",
       "chance", unknown},
      {model(R"("type":"BPE","vocab":{"a":0},"merges":[],"unk_token":"?")"), "model.unk_token",
       "not a token"},
      {model(R"("type":"BPE","vocab":{"a":0},"merges":[],"end_of_word_suffix":"</w>")"),
       "model.end_of_word_suffix", "marked", unknown},
      {model(R"("type":"BPE","vocab":{"a":0},"merges":[],"byte_fallback":"yes")"),
       "model.byte_fallback", "neither true nor false"},
      {bpe("{\"" + repeated("a", 5000) + "\":0}", "[]"), "vocabulary", "5000 bytes"},
      {unigram(R"([["a",0.5]])", "1"), "model.unk_id", "id 1"},
      {unigram(R"([["a",0.5]])", "null"), "model.unk_id", "missing"},
      {unigram(R"([["a"]])", "0"), "model.vocab.0", "no pair"},
      {unigram(R"([["a",1e300]])", "0"), "model.vocab.0", "no number"},
      {unigram(R"([[7,1]])", "0"), "model.vocab.0.0", "no string"},
      {with(R"("added_tokens":[{"id":9000000,"content":"x"}])"), "added_tokens.0.id", "id 9000000"},
      {with(R"("added_tokens":[{"id":0,"content":"x"}])"), "added_tokens.0",
       "the vocabulary's \"a\""},
      {with(R"("added_tokens":[{"id":3,"content":""}])"), "added_tokens.0.content", "empty"},
      {with(R"("added_tokens":[{"id":3}])"), "added_tokens.0.content", "missing"},
      {with(R"("added_tokens":7)"), "added_tokens", "no list"},
      {with(R"("normalizer":{"type":"Nmt"})"), "normalizer.type", "Nmt", unknown},
      {with(R"("normalizer":{})"), "normalizer.type", "missing"},
      {with(R"("normalizer":{"type":"Replace","pattern":{"Regex":"(("},"content":""})"),
       "normalizer.pattern", "parenthesis"},
      {with(R"("normalizer":{"type":"Replace","pattern":{"String":""},"content":"x"})"),
       "normalizer.pattern", "replaces nothing"},
      {with(R"("normalizer":{"type":"Precompiled","precompiled_charsmap":"AAAA"})"),
       "normalizer.precompiled_charsmap", "cut"},
      {with(R"("normalizer":{"type":"Precompiled","precompiled_charsmap":"//////8="})"),
       "normalizer.precompiled_charsmap", "does not fit"},
      {with(R"("normalizer":{"type":"Precompiled","precompiled_charsmap":"!"})"),
       "normalizer.precompiled_charsmap", "base64"},
      {with("\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[" +
            repeated("{\"type\":\"NFC\"},", 99) + "{\"type\":\"NFC\"}]}"),
       "normalizer.normalizers.64", "more than 64"},
      {with(
           R"("pre_tokenizer":{"type":"Split","pattern":{"Regex":"[z-a]"},"behavior":"Isolated"})"),
       "pre_tokenizer.pattern", "range out of order"},
      {with("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" +
            repeated("a", 20'000) + "\"},\"behavior\":\"Isolated\"}"),
       "pre_tokenizer.pattern", "20000 bytes"},
      {with("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" +
            repeated("(", 8000) + repeated(")", 8000) + "\"},\"behavior\":\"Isolated\"}"),
       "pre_tokenizer.pattern", "too deeply nested"},
      {with(R"("pre_tokenizer":{"type":"Split","pattern":{"String":" "},"behavior":"Away"})"),
       "pre_tokenizer.behavior", "Away", unknown},
      {with(R"("pre_tokenizer":{"type":"UnicodeScripts"})"), "pre_tokenizer.type", "UnicodeScripts",
       unknown},
      {with(R"("decoder":{"type":"CTC"})"), "decoder.type", "CTC", unknown},
      {with(
           R"("post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"?"}}]})"),
       "post_processor.single.0.SpecialToken.id", "not a token"},
      {with(R"("post_processor":{"type":"Odd"})"), "post_processor.type", "Odd", unknown},
  };
}

TEST(HostileTokenizerJson, IsRefusedWithFileFieldAndReason) {
  ASSERT_GE(wrong_files().size(), 40U);
  for (const Wrong& wrong : wrong_files()) {
    Folder folder;
    folder.put("tokenizer.json", wrong.json);
    const auto start = std::chrono::steady_clock::now();
    const auto loaded = load_tokenizer(folder.path());
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
    ASSERT_FALSE(loaded) << wrong.json.substr(0, 200);
    const std::string message = loaded.error().message();
    EXPECT_EQ(loaded.error().code, wrong.code) << message;
    EXPECT_THAT(message, HasSubstr("tokenizer.json"));
    EXPECT_THAT(message, HasSubstr(wrong.place));
    EXPECT_THAT(message, HasSubstr(wrong.why)) << wrong.json.substr(0, 200);
  }
}

TEST(HostileTokenizerJson, APatternThatRunsAwayEndsSoon) {
  Folder folder;
  folder.put("tokenizer.json",
             R"({"pre_tokenizer":{"type":"Split","pattern":{"Regex":"(a+)+(a+)+$"},)"
             R"("behavior":"Isolated"},)" +
                 kModel + "}");
  const auto loaded = load_tokenizer(folder.path());
  ASSERT_TRUE(loaded) << loaded.error().message();
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ((*loaded)->encode(repeated("a", 100'000) + "b", SpecialText::kAsText).size(), 100'000U);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

// Fields of a protocol buffer.
std::string field(unsigned number, const std::string& bytes) {
  std::string out(1, static_cast<char>(number << 3U | 2U));
  std::size_t size = bytes.size();
  for (; size >= 128; size >>= 7U) out += static_cast<char>(size | 128U);
  return out + static_cast<char>(size) + bytes;
}
std::string number(unsigned name, unsigned value) {
  return {static_cast<char>(name << 3U), static_cast<char>(value)};
}
std::string piece(const std::string& text, float score = 0, unsigned type = 1) {
  std::string bits(4, '\0');
  std::memcpy(bits.data(), &score, 4);
  return field(1, field(1, text) + static_cast<char>(2U << 3U | 5U) + bits + number(3, type));
}

TEST(HostileTokenizerModel, IsRefusedWithFileFieldAndReason) {
  const std::string unknown = piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3);
  const std::string key24 = {static_cast<char>(24U << 3U | 0x80U), static_cast<char>(24U >> 4U), 1};
  const std::vector<Wrong> cases = {
      {"", "pieces", "none"},
      {"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", "model", "no protocol buffer"},
      {std::string("\x0A\xFF\xFF\xFF\xFF\x0F", 6), "model", "no protocol buffer"},
      {std::string(1, '\x0B'), "model", "no protocol buffer"},
      {field(1, "\x0A\x7F"), "pieces[0]", "no protocol buffer"},
      {piece("a"), "pieces", "unknown token"},
      {unknown + piece(""), "pieces[3]", "empty"},
      {unknown + piece("\xC3"), "pieces[3]", "UTF-8"},
      {unknown + piece("a", std::numeric_limits<float>::quiet_NaN()), "pieces[3]", "no number"},
      {unknown + piece("a", std::numeric_limits<float>::infinity()), "pieces[3]", "no number"},
      {unknown + piece("a", 0, 9), "pieces[3]", "type is 9"},
      {unknown + piece("x", 0, 2), "pieces[3]", "second unknown"},
      {piece("<unk>", 0, 2), "trainer_spec.bos_id", "id 1 of 1"},
      {unknown + field(2, number(3, 4)), "trainer_spec.model_type", "UNIGRAM",
       ErrorCode::kUnsupported},
      {unknown + field(2, key24), "treat_whitespace_as_suffix", "not known",
       ErrorCode::kUnsupported},
      {unknown + field(3, number(5, 0)), "escape_whitespaces", "spaces", ErrorCode::kUnsupported},
      {unknown + field(3, field(2, "abc")), "precompiled_charsmap", "cut"},
      {unknown + field(3, field(2, std::string("\x08\0\0\0abcd", 8))), "precompiled_charsmap",
       "does not fit"},
      {unknown + piece(repeated("a", 5000)), "vocabulary", "5000 bytes"}};
  for (const Wrong& wrong : cases) {
    Folder folder;
    folder.put("tokenizer.model", wrong.json);
    const auto loaded = load_tokenizer(folder.path());
    ASSERT_FALSE(loaded) << wrong.why;
    const std::string message = loaded.error().message();
    EXPECT_EQ(loaded.error().code, wrong.code) << message;
    EXPECT_THAT(message, HasSubstr("tokenizer.model"));
    EXPECT_THAT(message, HasSubstr(wrong.place));
    EXPECT_THAT(message, HasSubstr(wrong.why));
  }
}

TEST(HostileTokenizerModel, ACharsMapThatPointsAnywhereIsReadWithinItsBytes) {
  std::uint64_t state = 1;
  for (int round = 0; round < 2000; ++round) {
    std::string blob(4 + 64, '\0');
    blob[0] = 64;
    for (std::size_t i = 4; i < blob.size(); ++i) {
      state = state * 6364136223846793005U + 1442695040888963407U;
      blob[i] = static_cast<char>(state >> 56U);
    }
    const auto map = CharsMap::read(blob + std::string("x\0y", 3));
    ASSERT_TRUE(map);
    for (const char* text : {"abc", "\xE4\xBB\x8A", "z"}) {
      EXPECT_LE(map->longest(text).length, 3U);
      EXPECT_LE(map->shortest(text).length, 3U);
    }
  }
}

TEST(HostileFolder, NamesTheConfigurationFileThatIsWrong) {
  const std::string good = "{" + kModel + "}";
  const std::vector<std::array<std::string, 3>> cases = {
      {"tokenizer_config.json", R"({"eos_token":"nope"})", "eos_token"},
      {"tokenizer_config.json", R"({"eos_token":7})", "eos_token"},
      {"tokenizer_config.json", "{", "no JSON"},
      {"generation_config.json", R"({"eos_token_id":77})", "id 77"},
      {"generation_config.json", R"({"eos_token_id":[0,-5]})", "eos_token_id.1"},
      {"config.json", R"({"eos_token_id":"a"})", "no integer"}};
  for (const auto& [file, text, why] : cases) {
    Folder folder;
    folder.put("tokenizer.json", good).put(file, text);
    const auto loaded = load_tokenizer(folder.path());
    ASSERT_FALSE(loaded) << text;
    EXPECT_THAT(loaded.error().message(), HasSubstr(file));
    EXPECT_THAT(loaded.error().message(), HasSubstr(why));
  }
  Folder none;
  const auto loaded = load_tokenizer(none.path());
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code, ErrorCode::kNotFound);
}

// Gemma 3 has one: an image token behind the last row of the embedding.
TEST(TokensWithoutARow, ThatWereAddedNeitherComeOutOfATextNorGoIn) {
  Folder folder;
  folder.put("tokenizer.json",
             "{\"added_tokens\":[{\"id\":3,\"content\":\"ba\",\"special\":true},"
             "{\"id\":4,\"content\":\"aa\",\"lstrip\":true}]," +
                 kModel + "}");
  const auto whole = load_tokenizer(folder.path());
  ASSERT_TRUE(whole) << whole.error().message();
  EXPECT_THAT((*whole)->encode("baaa", SpecialText::kAsControl), testing::ElementsAre(3, 4));
  const auto cut = load_tokenizer(folder.path(), 3);
  ASSERT_TRUE(cut) << cut.error().message();
  EXPECT_EQ((*cut)->vocab_size(), 3);
  EXPECT_THAT((*cut)->encode("baaa", SpecialText::kAsControl), testing::ElementsAre(1, 0, 0, 0));
  EXPECT_EQ((*cut)->bytes_of(3), "");
  EXPECT_FALSE((*cut)->is_special(3));
  const auto padded = load_tokenizer(folder.path(), 8);
  ASSERT_TRUE(padded) << padded.error().message();
  EXPECT_THAT((*padded)->encode("baaa", SpecialText::kAsControl), testing::ElementsAre(3, 4));
}

TEST(TokensWithoutARow, ThatTheModelNeedsAreRefusedWithFileFieldAndReason) {
  const std::string added = R"("added_tokens":[{"id":3,"content":"<s>","special":true}],)";
  const std::string begin =
      R"("post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>"}}]},)";
  struct {
    std::string json, config, why;
    std::int32_t rows;
  } const cases[] = {
      {"{" + kModel + "}", "{}", "\"ab\" has id 2, the model's embedding has 2 rows", 2},
      {"{" + added + begin + kModel + "}", "{}", "\"<s>\" has id 3, the model's embedding", 3},
      {"{" + added + kModel + "}", R"({"eos_token_id":3})", "id 3 of a vocabulary of 3", 3},
  };
  for (const auto& wrong : cases) {
    Folder folder;
    folder.put("tokenizer.json", wrong.json).put("generation_config.json", wrong.config);
    ASSERT_TRUE(load_tokenizer(folder.path(), 4));
    const auto loaded = load_tokenizer(folder.path(), wrong.rows);
    ASSERT_FALSE(loaded) << wrong.why;
    EXPECT_EQ(loaded.error().code, ErrorCode::kInvalid);
    EXPECT_THAT(loaded.error().message(), HasSubstr(folder.path().string()));
    EXPECT_THAT(loaded.error().message(), HasSubstr(wrong.why));
  }
}

TEST(HuggingFaceFolder, TakesEndsAndTheTemplateFromItsFiles) {
  Folder folder;
  folder.put("tokenizer.json",
             "{\"added_tokens\":[{\"id\":3,\"content\":\"<|im_end|>\",\"special\":true},"
             "{\"id\":4,\"content\":\"<|im_start|>\",\"special\":true}]," +
                 kModel + "}");
  folder.put("generation_config.json", R"({"eos_token_id":[1,2]})");
  const std::string chat =
      "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' }}"
      "{% endfor %}{% if add_generation_prompt %}<|im_start|>a{% endif %}";
  folder.put("chat_template.jinja", chat);
  const auto tokenizer = load_tokenizer(folder.path());
  ASSERT_TRUE(tokenizer) << tokenizer.error().message();
  EXPECT_THAT((*tokenizer)->end_tokens(), testing::ElementsAre(1, 2, 3));
  const auto loaded = load_chat_template(folder.path(), **tokenizer);
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_THAT((*loaded)->prompt({}, "ab"), testing::ElementsAre(4, 2, 3, 4, 0));
  folder.put("chat_template.jinja", "{% import 'x' %}");
  const auto broken = load_chat_template(folder.path(), **tokenizer);
  ASSERT_FALSE(broken);
  EXPECT_THAT(broken.error().message(), HasSubstr("chat_template.jinja, line 1: {% import %}"));
}

}  // namespace
}  // namespace kvfs::text

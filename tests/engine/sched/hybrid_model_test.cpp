// The scheduler on a model with short convolutions beside attention (a tiny LFM2 in which a letter
// is a token): their state comes back from the store wherever a text ended.
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "codec/container/safetensors.h"
#include "engine/store/views.h"
#include "tests/engine/sched/house.h"

namespace kvfs::sched::test {
namespace {

namespace fs = std::filesystem;

constexpr int kVocab = 96;  // the tiny model's

// The committed model with a tokenizer: printable ASCII from '!' on is 1, 2, …, a space kVocab − 1.
fs::path tiny_model() {
  const fs::path from = KVFS_REPO_DIR "/tests/engine/model/goldens/families/lfm2";
  struct Folder {  // of this process: tests run side by side
    fs::path path = fs::path(::testing::TempDir()) / ("hybrid-" + std::to_string(::getpid()));
    ~Folder() { fs::remove_all(path); }
  };
  static const Folder folder;
  const fs::path to = folder.path / "tiny-lfm2";
  fs::create_directories(to);
  for (const char* name : {"config.json", "model.safetensors"})
    fs::copy_file(from / name, to / name, fs::copy_options::overwrite_existing);
  std::string vocab = R"("<end>": 0)";
  for (int id = 1; id < kVocab - 1; ++id) {
    const std::string letter(1, static_cast<char>('!' + id - 1));
    vocab += ", \"" + std::string(letter == "\"" || letter == "\\" ? "\\" : "") + letter +
             "\": " + std::to_string(id);
  }
  std::ofstream(to / "tokenizer.json")
      << R"({"version": "1.0", "added_tokens": [{"id": 0, "content": "<end>", "special": true,
          "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}],
          "normalizer": null, "post_processor": null,
          "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false},
          "decoder": {"type": "ByteLevel"},
          "model": {"type": "BPE", "merges": [], "vocab": {)"
      << vocab << R"(, "\u0120": )" << kVocab - 1 << "}}}";
  return to;
}

std::string letters(std::size_t count, std::uint32_t seed = 1) {
  std::string out;
  while (out.size() < count) {
    seed = seed * 1664525U + 1013904223U;
    out += static_cast<char>('!' + (seed >> 8) % (kVocab - 2));
  }
  return out;
}

class HybridModel : public ::testing::Test {
 protected:
  House house_{tiny_model()};

  static ParamMap raw(int max_tokens) {
    return {{"template", "raw"}, {"temperature", "0"}, {"max_tokens", std::to_string(max_tokens)}};
  }
  // With nothing that the others' states could share with it.
  StateId stranger(const std::string& name, int max_tokens = 8) {
    return house_.make(name, raw(max_tokens), {}, next_user_++);
  }
  std::uint32_t next_user_ = 1000;
};

TEST_F(HybridModel, AStateSurvivesARestartAtAnyLength) {
  for (const std::size_t length : {1U, 2U, 100U, 255U, 256U, 257U, 258U, 300U}) {
    const std::string name = "s" + std::to_string(length);
    const std::string text = letters(length + 40);
    const StateId whole = stranger(name + "-whole");
    const StateId parts = stranger(name + "-parts");
    house_.feed(whole, text);
    house_.feed(parts, text.substr(0, length));
    const std::string asked = house_.ask(parts, "why").text;
    house_.reopen();
    const auto again = house_.ask(parts, "why");
    EXPECT_EQ(again.text, asked) << length;
    EXPECT_EQ(again.record.restored_tokens, length);
    EXPECT_EQ(house_.scheduler().counters().prefilled_tokens, 3U);
    house_.feed(parts, text.substr(length));
    EXPECT_EQ(house_.files(parts), house_.files(whole)) << length;
    EXPECT_EQ(house_.scheduler().counters().prefilled_tokens, 43U);
  }
}

TEST_F(HybridModel, ContinueThenRestartThenStepEqualsContinue) {
  const StateId whole = stranger("whole", 64);
  const StateId parts = stranger("parts", 64);
  house_.go_on(whole, letters(230));
  house_.go_on(parts, letters(230), {{"max_tokens", "24"}});
  for (int i = 0; i < 4; ++i) {  // 254, 264, 274, 284 known, 294 at the end
    house_.reopen();
    house_.step(parts, 10);
  }
  EXPECT_EQ(house_.files(whole), house_.files(parts));
  EXPECT_EQ(house_.version(whole).n_tokens, 294U);
}

TEST_F(HybridModel, AForkInsideABlockGoesOnAsTheOriginal) {
  const std::string text = letters(340);
  const StateId original = stranger("original");
  house_.feed(original, text.substr(0, 300));
  const StateId fork = house_.make("fork", {}, original, next_user_++);
  const StateId other = house_.make("other", {}, original, next_user_++);
  house_.feed(other, letters(50, 9));
  house_.feed(original, text.substr(300));
  house_.reopen();
  EXPECT_EQ(house_.feed(fork, text.substr(300)).record.known_tokens, 0U);
  EXPECT_EQ(house_.scheduler().counters().prefilled_tokens, 40U);
  EXPECT_EQ(house_.files(fork), house_.files(original));
  EXPECT_NE(house_.files(other), house_.files(original));
}

TEST_F(HybridModel, AForkAtABlocksEndPrefillsNothing) {
  const StateId original = stranger("original", 20);
  const StateId expected = stranger("expected", 20);
  house_.feed(original, letters(256));
  house_.go_on(expected, letters(256));
  const StateId fork = house_.make("fork", {}, original, next_user_++);
  house_.reopen();
  const auto stepped = house_.step(fork, 20);
  EXPECT_EQ(stepped.record.restored_tokens, 256U);
  EXPECT_EQ(house_.scheduler().counters().prefilled_tokens, 0U);
  EXPECT_EQ(house_.files(fork), house_.files(expected));
}

TEST_F(HybridModel, WhatAPrefixHitBringsIsTheState) {
  const std::string text = letters(500);
  const StateId first = house_.make("first", raw(8), {}, 7);
  const StateId second = house_.make("second", raw(8), {}, 7);
  const StateId unaided = stranger("unaided");
  house_.feed(first, text.substr(0, 490));
  house_.reopen();
  const auto known = house_.feed(second, text);
  EXPECT_EQ(known.record.known_tokens, 256U);
  EXPECT_EQ(house_.feed(unaided, text).record.known_tokens, 0U);
  EXPECT_EQ(house_.files(second), house_.files(unaided));
}

TEST_F(HybridModel, ABranchThatSharesBlocksOnTheDeviceGoesOnTheSame) {
  const std::string text = letters(490);
  const StateId parent = house_.make("parent", raw(8), {}, 7);
  house_.feed(parent, text.substr(0, 300));
  const StateId branch = house_.make("branch", {}, parent, 7);
  house_.feed(branch, text.substr(300, 150));
  const StateId whole = stranger("whole");
  house_.feed(whole, text);
  house_.reopen();
  house_.ask(parent, "why");
  const auto fed = house_.feed(branch, text.substr(450));
  EXPECT_EQ(fed.record.restored_tokens, 450U - 256U);
  EXPECT_EQ(house_.files(branch), house_.files(whole));
}

TEST_F(HybridModel, ReadAgainItGoesOnTheSame) {
  const std::string text = letters(490);
  const StateId whole = stranger("whole");
  const StateId parts = stranger("parts");
  house_.feed(whole, text);
  house_.feed(parts, text.substr(0, 450));
  house_.options.rates.read(0, 4096, Planner::Seconds{0.1});
  house_.options.rates.restored(64 << 20, Planner::Seconds{1e6});
  house_.reopen();
  EXPECT_EQ(house_.feed(parts, text.substr(450)).record.recomputed_tokens, 450U);
  EXPECT_EQ(house_.files(parts), house_.files(whole));
}

TEST_F(HybridModel, ItsFilesHoldTheInputsAtTheBlocksEnds) {
  const StateId state = stranger("s");
  house_.feed(state, letters(300));
  const auto version = house_.version(state);
  EXPECT_EQ(version.extents[0].lengths, (std::vector<std::uint32_t>{6}));
  EXPECT_EQ(version.extents[1].lengths, (std::vector<std::uint32_t>{300}));
  const auto view = store::layer_view(house_.store(), version, 0);
  ASSERT_TRUE(view);
  Bytes file((*view)->size());
  ASSERT_TRUE((*view)->read(0, file));
  const auto header = container::parse_safetensors_header(file, file.size());
  ASSERT_TRUE(header);
  EXPECT_EQ(header->tensors[0].name, "conv");
  EXPECT_EQ(header->tensors[0].shape, (std::vector<std::uint64_t>{6, 32}));
  const auto report = house_.store().verify();
  ASSERT_TRUE(report);
  EXPECT_TRUE(report->problems.empty());
}

}  // namespace
}  // namespace kvfs::sched::test

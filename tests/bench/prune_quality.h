// What pruning costs in quality: how well a pruned state foretells the text that follows, gives
// back sentences that were planted in it, and answers many questions as the full state does.
//
// All of a process's in memory; the engine's library alone, one thread.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <fstream>
#include <memory>
#include <span>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "engine/model/model.h"
#include "engine/model/pruning.h"
#include "engine/prune/choose.h"

namespace kvfs::model::quality {

// ---- the material

inline std::string file_text(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

struct Planted {
  std::string ask;     // the sentence up to the word
  std::string answer;  // the word
};
inline std::vector<Planted> planted() {
  return {{"The captain of the ship Aurora was called", " Henderson"},
          {"The bread of the Norwegian bakers is spiced with", " cardamom"},
          {"In the museum of Lisbon stands a statue made of", " marble"},
          {"The password for the garden gate on Tuesdays is", " violet"},
          {"My uncle Frederick always travels with his old", " piano"},
          {"The best telescope of the observatory was built in", " Vienna"},
          {"Every winter the farmers of the valley sell their", " horses"},
          {"The secret ingredient of the queen's soup is", " ginger"},
          {"Beneath the bridge at midnight the smugglers hid the", " silver"},
          {"The youngest student at the school of magic is", " Oliver"}};
}

inline const std::vector<std::string>& questions() {
  static const std::vector<std::string> kQuestions = {
      "Who is Alice sitting with at the beginning?",
      "What did the White Rabbit take out of its waistcoat-pocket?",
      "What was on the label of the jar that Alice took from a shelf?",
      "What is the name of Alice's cat?",
      "What did Alice find on the little three-legged table of glass?",
      "How high was the little door behind the curtain?",
      "What was written on the label of the bottle?",
      "How did the drink in the bottle taste?",
      "What happened to Alice after she drank from the bottle?",
      "What was in the little glass box under the table?",
      "Why did Alice follow the Rabbit?",
      "Describe the well that Alice fell down.",
      "What did Alice say about the Antipathies?",
      "What did Alice think about while she was falling?",
      "Where did Alice land at the end of her fall?",
      "What could Alice see through the little door?",
      "What did the White Rabbit say to itself?",
      "Summarize the story in one sentence.",
      "Is Alice a careful girl? Explain.",
      "What is the password for the garden gate on Tuesdays?"};
  return kQuestions;
}

// Paragraphs, the sentences planted evenly among the first `tokens` tokens of them.
inline std::string story(const text::Tokenizer& tokenizer, const std::string& text,
                         std::size_t tokens) {
  std::vector<std::string> paragraphs;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find("\n\n", begin), text.size());
    paragraphs.push_back(text.substr(begin, end - begin));
    begin = end + 2;
  }
  std::vector<std::size_t> before;  // tokens before each paragraph, about
  std::size_t all = 0;
  for (const std::string& paragraph : paragraphs) {
    before.push_back(all);
    all += tokenizer.encode(paragraph, text::SpecialText::kAsText).size() + 1;
  }
  const std::vector<Planted> sentences = planted();
  const std::size_t room = tokens - std::min(tokens, sentences.size() * 12);
  std::string whole;
  std::size_t next = 0;
  for (std::size_t i = 0; i < paragraphs.size(); ++i) {
    while (next < sentences.size() && before[i] >= (next * room) / (sentences.size() + 1)) {
      whole += sentences[next].ask + sentences[next].answer + ".\n\n";
      ++next;
    }
    whole += paragraphs[i] + "\n\n";
  }
  return whole;
}

// ---- measuring

struct Quality {
  double kept = 1;          // of the entries
  double perplexity = 0;    // of the text that follows
  double kl = 0;            // nats a token, of the full state's distribution to the pruned one's
  double retrieved = 0;     // of the planted words
  double same_replies = 0;  // of the questions: all tokens of the reply are the full state's
  double reply_kl = 0;      // as kl, along the full state's replies
  double same_next = 0;     // of the tokens of those replies: also the pruned state's best next one
  double same_begin = 0;    // of a reply's tokens, how many come before the first other one
  double seconds = 0;       // to choose and to prune, what is read again not included
};

struct Sizes {
  std::size_t context = 3000;  // tokens
  std::size_t held_out = 512;
  std::size_t questions = 20;
  std::size_t reply = 20;  // tokens
};

// A text in a state, full.
struct Subject {
  std::vector<TokenId> tokens;
  std::unique_ptr<Sequence> sequence;
  bool chat = false;
};

class Lab {
 public:
  static Result<std::unique_ptr<Lab>> open(Model& model, const ModelCard& card,
                                           const std::string& text, const Sizes& sizes) {
    std::unique_ptr<Lab> lab(new Lab(model, card, sizes));
    KVFS_TRY(lab->prepare(text));
    return lab;
  }

  // What the methods with these needs are told of the two states.
  struct Seen {
    prune::Observation raw;
    prune::Observation chat;
    std::int64_t tokens = 0;  // read again for both
    double seconds = 0;
  };
  Result<Seen> look(const prune::Method& method) {
    Seen seen;
    const auto begin = std::chrono::steady_clock::now();
    for (const Subject* subject : {&raw_, &chat_}) {
      KVFS_ASSIGN(prune::Plan plan, plan_pruning(card_, method, subject->tokens, subject->chat));
      seen.tokens += plan.tokens();
      KVFS_ASSIGN(const auto observer, model_.look_again(*subject->sequence, std::move(plan)));
      for (bool all = false; !all;) {
        KVFS_ASSIGN(all, observer->read());
      }
      KVFS_ASSIGN((subject->chat ? seen.chat : seen.raw), observer->take());
    }
    seen.seconds = since(begin);
    return seen;
  }

  Result<Quality> measure(const prune::Method& method, const Seen& seen) {
    Quality quality;
    const auto pruned = [&](const Subject& subject,
                            const prune::Observation& of) -> Result<std::unique_ptr<Sequence>> {
      auto fork = model_.fork(*subject.sequence);
      const auto begin = std::chrono::steady_clock::now();
      KVFS_ASSIGN(const prune::Kept kept, prune::choose(method, of));
      KVFS_TRY(model_.prune(*fork, kept));
      quality.seconds = since(begin);
      quality.kept = share_of(kept, of);
      return fork;
    };
    KVFS_ASSIGN(const auto raw, pruned(raw_, seen.raw));
    KVFS_TRY(follow(*raw, quality));
    KVFS_TRY(retrieve(*raw, quality));
    KVFS_ASSIGN(const auto chat, pruned(chat_, seen.chat));
    KVFS_ASSIGN(const auto replies, ask(*chat));
    compare(replies, quality);
    KVFS_TRY(follow_replies(*chat, quality));
    return quality;
  }

  const Quality& full() const { return full_; }
  std::size_t context() const { return raw_.tokens.size(); }

 private:
  static constexpr std::size_t kSlice = 64;
  using Replies = std::vector<std::vector<TokenId>>;

  Lab(Model& model, const ModelCard& card, const Sizes& sizes)
      : model_(model),
        card_(card),
        sizes_(sizes),
        vocab_(static_cast<std::size_t>(model.info().vocab_size)) {}

  static double since(std::chrono::steady_clock::time_point begin) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }

  static double share_of(const prune::Kept& kept, const prune::Observation& of) {
    std::size_t stay = 0;
    std::size_t all = 0;
    for (std::size_t layer = 0; layer < kept.size(); ++layer) {
      for (std::size_t head = 0; head < kept[layer].size(); ++head) {
        stay += kept[layer][head].size();
        all += of[layer].positions[head].size();
      }
    }
    return static_cast<double>(stay) / static_cast<double>(all);
  }

  Status prepare(const std::string& text) {
    const std::string whole = story(*card_.tokenizer, text, sizes_.context);
    std::vector<TokenId> ids = card_.tokenizer->encode(whole, text::SpecialText::kAsText);
    if (ids.size() < sizes_.context + sizes_.held_out) {
      return fail(ErrorCode::kInvalid, "measure quality",
                  "the text has " + std::to_string(ids.size()) + " tokens only");
    }
    const auto at = [&](std::size_t n) { return ids.begin() + static_cast<std::ptrdiff_t>(n); };
    held_out_.assign(at(sizes_.context), at(sizes_.context + sizes_.held_out));
    ids.resize(sizes_.context);
    chat_.chat = card_.chat != nullptr;
    chat_.tokens = chat_.chat ? card_.chat->feed({}, card_.tokenizer->decode(ids)) : ids;
    raw_.tokens = std::move(ids);
    for (Subject* subject : {&raw_, &chat_}) {
      subject->sequence = model_.new_sequence();
      KVFS_TRY(model_.prefill(*subject->sequence, subject->tokens, {}));
    }
    KVFS_TRY(follow(*raw_.sequence, full_));
    KVFS_TRY(retrieve(*raw_.sequence, full_));
    KVFS_ASSIGN(full_replies_, ask(*chat_.sequence));
    compare(full_replies_, full_);
    return follow_replies(*chat_.sequence, full_);
  }

  // The held-out tokens: their perplexity, and how far the distributions are from the full state's,
  // which are kept the first time.
  Status follow(const Sequence& state, Quality& to) {
    const auto sequence = model_.fork(state);
    const bool first = full_logs_.empty();
    const std::size_t steps = held_out_.size() - 1;
    if (first) full_logs_.resize(steps * vocab_);
    std::vector<float> logits;
    double surprise = 0;
    double divergence = 0;
    for (std::size_t begin = 0; begin < steps; begin += kSlice) {
      const std::size_t count = std::min(kSlice, steps - begin);
      logits.resize(count * vocab_);
      KVFS_TRY(model_.prefill(*sequence, std::span(held_out_).subspan(begin, count), logits));
      for (std::size_t i = 0; i < count; ++i) {
        const std::span<float> row = std::span(logits).subspan(i * vocab_, vocab_);
        to_logs(row);
        surprise -= static_cast<double>(row[static_cast<std::size_t>(held_out_[begin + i + 1])]);
        const std::span<float> full = std::span(full_logs_).subspan((begin + i) * vocab_, vocab_);
        if (first) std::ranges::copy(row, full.begin());
        divergence += divergence_of(full, row);
      }
    }
    to.perplexity = std::exp(surprise / static_cast<double>(steps));
    to.kl = divergence / static_cast<double>(steps);
    return {};
  }

  // The full state's replies, read: the first time its distributions along them are kept.
  Status follow_replies(const Sequence& state, Quality& to) {
    std::vector<float> logits;
    const bool first = reply_logs_.empty();
    double divergence = 0;
    std::size_t same = 0;
    std::size_t steps = 0;
    for (std::size_t i = 0; i < full_replies_.size(); ++i) {
      // The question's last token and the reply but for its last: as many rows as the reply has.
      std::vector<TokenId> question = prompt(i);
      std::vector<TokenId> reply{question.back()};
      question.pop_back();
      reply.insert(reply.end(), full_replies_[i].begin(), full_replies_[i].end() - 1);
      if (reply.size() < 2) continue;  // logits for each are asked for by their number
      const auto fork = model_.fork(state);
      KVFS_TRY(model_.prefill(*fork, question, {}));
      logits.resize(reply.size() * vocab_);
      KVFS_TRY(model_.prefill(*fork, reply, logits));
      for (std::size_t at = 0; at < reply.size(); ++at, ++steps) {
        const std::span<float> row = std::span(logits).subspan(at * vocab_, vocab_);
        to_logs(row);
        const auto best = std::ranges::max_element(row) - row.begin();
        same += best == full_replies_[i][at] ? 1U : 0U;
        if (first) reply_logs_.insert(reply_logs_.end(), row.begin(), row.end());
        divergence += divergence_of(std::span(reply_logs_).subspan(steps * vocab_, vocab_), row);
      }
    }
    to.reply_kl = divergence / static_cast<double>(steps);
    to.same_next = static_cast<double>(same) / static_cast<double>(steps);
    return {};
  }

  static double divergence_of(std::span<const float> full, std::span<const float> other) {
    double sum = 0;
    for (std::size_t token = 0; token < full.size(); ++token)
      sum += static_cast<double>(std::exp(full[token]) * (full[token] - other[token]));
    return sum;
  }

  static void to_logs(std::span<float> logits) {
    const float top = *std::ranges::max_element(logits);
    double sum = 0;
    for (const float x : logits) sum += static_cast<double>(std::exp(x - top));
    const float whole = top + static_cast<float>(std::log(sum));
    for (float& x : logits) x -= whole;
  }

  Status retrieve(const Sequence& state, Quality& to) {
    std::size_t found = 0;
    for (const Planted& sentence : planted()) {
      const auto ids = card_.tokenizer->encode("\n\n" + sentence.ask, text::SpecialText::kAsText);
      const auto answer = card_.tokenizer->encode(sentence.answer, text::SpecialText::kAsText);
      KVFS_ASSIGN(const Replies reply, generate(state, {ids}, answer.size()));
      found += reply[0] == answer ? 1U : 0U;
    }
    to.retrieved = static_cast<double>(found) / static_cast<double>(planted().size());
    return {};
  }

  std::vector<TokenId> prompt(std::size_t question) const {
    const std::string& text = questions()[question];
    if (chat_.chat) return card_.chat->prompt(chat_.tokens, text);
    return card_.tokenizer->encode("\n\nQuestion: " + text + "\nAnswer:",
                                   text::SpecialText::kAsText);
  }

  Result<Replies> ask(const Sequence& state) {
    std::vector<std::vector<TokenId>> prompts;
    for (std::size_t i = 0; i < sizes_.questions; ++i) prompts.push_back(prompt(i));
    return generate(state, prompts, sizes_.reply);
  }

  // Greedy replies of that many tokens, or up to an end token, each on a fork of its own.
  Result<Replies> generate(const Sequence& state, const std::vector<std::vector<TokenId>>& prompts,
                           std::size_t tokens) {
    Replies replies;
    const auto most = static_cast<std::size_t>(model_.max_batch());
    for (std::size_t first = 0; first < prompts.size(); first += most) {
      const std::size_t count = std::min(most, prompts.size() - first);
      std::vector<std::unique_ptr<Sequence>> forks;
      std::vector<std::vector<float>> logits(count, std::vector<float>(vocab_));
      for (std::size_t i = 0; i < count; ++i) {
        forks.push_back(model_.fork(state));
        KVFS_TRY(model_.prefill(*forks[i], prompts[first + i], logits[i]));
        replies.emplace_back();
      }
      for (std::size_t step = 0; step < tokens; ++step) {
        std::vector<DecodeItem> items;
        for (std::size_t i = 0; i < count; ++i) {
          const auto best =
              static_cast<TokenId>(std::ranges::max_element(logits[i]) - logits[i].begin());
          replies[first + i].push_back(best);
          items.push_back({forks[i].get(), best, logits[i]});
        }
        if (step + 1 < tokens) KVFS_TRY(model_.decode(items));
      }
    }
    const std::vector<TokenId>& ends = card_.tokenizer->end_tokens();
    for (std::vector<TokenId>& reply : replies) {
      const auto end = std::ranges::find_first_of(reply, ends);
      if (end != reply.end()) reply.erase(end + 1, reply.end());
    }
    return replies;
  }

  void compare(const Replies& replies, Quality& to) const {
    double same = 0;
    double begin = 0;
    for (std::size_t i = 0; i < replies.size(); ++i) {
      const std::vector<TokenId>& full = full_replies_[i];
      same += replies[i] == full ? 1 : 0;
      const auto apart = std::ranges::mismatch(replies[i], full).in2 - full.begin();
      begin += static_cast<double>(apart) / static_cast<double>(full.size());
    }
    to.same_replies = same / static_cast<double>(replies.size());
    to.same_begin = begin / static_cast<double>(replies.size());
  }

  Model& model_;
  const ModelCard& card_;
  Sizes sizes_;
  std::size_t vocab_;
  Subject raw_;
  Subject chat_;
  std::vector<TokenId> held_out_;
  std::vector<float> full_logs_;  // [held-out tokens but one, vocab]: log-probabilities
  Replies full_replies_;
  std::vector<float> reply_logs_;  // [tokens of the full state's replies, vocab]
  Quality full_;
};

// A method in the words of policy.h that leaves about `share` of so many entries.
inline std::string words_for(const std::string& method, double share, std::size_t entries) {
  const auto count = static_cast<int>(share * static_cast<double>(entries));
  const std::string number = std::to_string(count);
  if (method == "keep_last") return "keep_last n=" + std::to_string(count - 4) + " sinks=4";
  if (method == "snapkv" || method == "adakv" || method == "pyramidkv")
    return method + " capacity=" + number + " window=" + std::to_string(std::min(64, count / 2));
  if (method == "pyramid" || method == "pyramid_mean") {
    return "pyramid bottom=" + std::to_string(count * 8 / 5) +
           " top=" + std::to_string(count * 2 / 5) + " window=" + std::to_string(count / 5) +
           (method == "pyramid" ? "" : " select=mean");
  }
  char text[64];
  std::snprintf(text, sizeof text, "%s keep=%.3f", method.c_str(), share);
  return text;
}

}  // namespace kvfs::model::quality

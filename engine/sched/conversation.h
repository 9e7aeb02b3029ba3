// A whole conversation, as HTTP clients send it again with each turn, as one text that tokens can
// be held against. A reply's text need not tokenize to the ids that made it, so what is stored is
// found by what it spells, before anything is tokenized.
//
// Pure, any thread. A control token is matched by itself alone: where the template writes one, and
// nowhere else, however users' words are spelled.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "codec/base/result.h"
#include "engine/model/model.h"

namespace kvfs::sched {

// [{"role": "system" | "user" | "assistant", "content": text, or [{"type":"text","text":…}…]}, …].
// kInvalid says which message is not so.
Result<std::vector<text::jinja::Message>> read_messages(std::string_view json);

class Conversation {
 public:
  // kInvalid: no chat template, roles out of order. The card must outlive it.
  static Result<Conversation> render(const model::ModelCard& card,
                                     const std::vector<text::jinja::Message>& messages);

  const text::Tokenizer& tokenizer() const { return *tokenizer_; }
  std::string_view text() const { return text_; }
  const std::vector<text::Stretch>& stretches() const { return stretches_; }
  // The ids of the text from a border on, which these ids spell up to there.
  std::vector<TokenId> rest_after(const std::vector<TokenId>& ids, std::size_t offset) const;

 private:
  const text::Tokenizer* tokenizer_ = nullptr;
  std::string text_;
  std::vector<text::ChatTemplate::Part> parts_;
  std::vector<text::Stretch> stretches_;
};

// Follows tokens through a conversation's text.
class Follower {
 public:
  explicit Follower(const Conversation& conversation) : conversation_(&conversation) {}
  bool take(TokenId id);  // false, and nowhere else, where the text does not go on with it
  // Beside a control token, or at the end: the text is cut here before it is tokenized, so what
  // follows has the same ids whatever stands before.
  bool at_border() const;
  std::size_t offset() const { return offset_; }

 private:
  const Conversation* conversation_;  // outlives it
  std::size_t stretch_ = 0;           // the one that offset_ lies in, or begins
  std::size_t offset_ = 0;            // bytes of the text
  bool spaced_ = false;               // the stretch's added space was there
};

}  // namespace kvfs::sched

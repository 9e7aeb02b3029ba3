// ChatML templates: <|im_start|>ROLE\nTEXT<|im_end|>\n, with or without a default system turn.
//
// Recognised by reading the Jinja text construct by construct. What the template puts around a turn
// is encoded with its markers as control tokens; users' text never is. What a state has already is
// tokens that cannot change, so a new piece is tokenized by itself.
//
// A history without any marker (made with template raw) counts as closed, and a turn that is open
// with any role but user counts as open by the assistant: the next turn closes it first.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/chat_template.h"

namespace kvfs::text {

class ChatMlTemplate final : public ChatTemplate {
 public:
  // kUnsupported quotes the first part of the template that is not ChatML's.
  static Result<std::unique_ptr<ChatTemplate>> load(std::string_view jinja,
                                                    const Tokenizer& tokenizer);

  TailKind tail_of(const std::vector<TokenId>& history) const override;
  std::vector<TokenId> feed(const std::vector<TokenId>& history,
                            std::string_view text) const override;
  std::vector<TokenId> prompt(const std::vector<TokenId>& history,
                              std::string_view text) const override;

 private:
  explicit ChatMlTemplate(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  // Index of the last marker; history.size() where there is none.
  std::size_t last_marker(const std::vector<TokenId>& history) const;
  // What a new turn finds before it: closes what is open, ends the line after an end of turn.
  std::vector<TokenId> close(const std::vector<TokenId>& history) const;
  void add_markup(std::string_view markup, std::vector<TokenId>& out) const;
  void add_text(std::string_view text, std::vector<TokenId>& out) const;

  const Tokenizer& tokenizer_;
  TokenId start_ = -1, end_ = -1;
  std::string default_system_;  // the whole turn, markers included; may be empty
};

}  // namespace kvfs::text

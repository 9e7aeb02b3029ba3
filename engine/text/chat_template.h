// Chat templates: turns → the token ids that a state appends.
//
// The state keeps no list of messages: a turn is appended to what is already there, so a template
// gives the pieces around a turn. Immutable, any thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/tokenizer.h"

namespace kvfs::text {

enum class Role { kSystem, kUser, kAssistant };

// What a state's history ends with, derived from its last tokens by ChatTemplate::tail_of.
enum class TailKind {
  kEmpty,          // no tokens yet
  kTurnClosed,     // after an end of turn (and what the template puts after it, or not yet)
  kUserOpen,       // a user turn left open by feed/ : the next text joins it
  kAssistantOpen,  // a reply stopped by max_tokens, cancel or step: the next turn closes it first
};

class ChatTemplate {
 public:
  virtual ~ChatTemplate() = default;

  virtual TailKind tail_of(const std::vector<TokenId>& history) const = 0;

  // Ids that feed/ appends: on an empty state a system turn holding the text; otherwise a user turn
  // left open (or more text of the one that is open).
  virtual std::vector<TokenId> feed(const std::vector<TokenId>& history,
                                    std::string_view text) const = 0;

  // Ids that ask/ and continue/ append: closes what is open, puts the model's default system text
  // first on an empty state, adds the user turn (one trailing newline of the text dropped) and opens
  // the assistant's.
  virtual std::vector<TokenId> prompt(const std::vector<TokenId>& history,
                                      std::string_view text) const = 0;
};

// From tokenizer.chat_template. kNotFound: the model has none (its states use raw); kUnsupported
// names the construct that is not understood. The tokenizer must outlive the template.
Result<std::unique_ptr<ChatTemplate>> load_chat_template(const container::GgufFile& file,
                                                         const Tokenizer& tokenizer);

}  // namespace kvfs::text

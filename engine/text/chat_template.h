// Chat templates: turns → the token ids that a state appends.
//
// The state keeps no list of messages: a turn is appended to tokens that cannot change. So the
// template (Jinja, jinja/) is rendered once over made-up turns, and what it writes around them is
// kept as pieces: before the system text, between it and the user's, and so on. Pieces are encoded
// with their markers as control tokens; users' text never is. Immutable, any thread.
//
// A history without any marker (made with template raw) counts as closed, and a turn that is open
// with any role but user counts as open by the assistant: the next turn closes it first.
#pragma once

#include <ctime>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/jinja/template.h"
#include "engine/text/tokenizer.h"

namespace kvfs::text {

// What a state's history ends with, derived from its last tokens by ChatTemplate::tail_of.
enum class TailKind {
  kEmpty,          // no tokens yet
  kTurnClosed,     // after an end of turn (and what the template puts after it, or not yet)
  kUserOpen,       // a user turn left open by feed/ : the next text joins it
  kAssistantOpen,  // a reply stopped by max_tokens, cancel or step: the next turn closes it first
};

// What a template is rendered with besides the turns.
struct TemplateTokens {
  std::string bos, eos;  // spellings; may be empty
};

class ChatTemplate {
 public:
  // kUnsupported names the construct that is not understood, or says why turns cannot be appended.
  // The tokenizer must outlive the template.
  static Result<std::unique_ptr<ChatTemplate>> load(std::string_view jinja, TemplateTokens tokens,
                                                    const Tokenizer& tokenizer);

  TailKind tail_of(const std::vector<TokenId>& history) const;

  // Ids that feed/ appends: on an empty state a system turn holding the text (a user turn where the
  // template knows no system); otherwise a user turn left open, or more text of the one that is.
  std::vector<TokenId> feed(const std::vector<TokenId>& history, std::string_view text) const;

  // Ids that ask/ and continue/ append: closes what is open, puts the model's default system text
  // first on an empty state, adds the user turn (one trailing newline of the text dropped) and
  // opens the assistant's.
  std::vector<TokenId> prompt(const std::vector<TokenId>& history, std::string_view text) const;

  // A whole conversation as feed() of its system text, prompt() of each user's text and the replies
  // between them would have written it, the assistant's turn open at the end. kInvalid: roles that
  // do not take turns, a system text that the template knows no place for.
  struct Part {
    std::string text;
    SpecialText special;
  };
  Result<std::vector<Part>> conversation(const std::vector<jinja::Message>& messages) const;

 private:
  // How a state begins; rendered anew where the template asks for the date.
  struct Opening {
    std::string user;          // before a first user text without a system text
    std::string system;        // before a system text; empty: the template knows none
    std::string after_system;  // closes the system turn, or opens the user's in it
  };
  ChatTemplate(jinja::Template jinja, TemplateTokens tokens, const Tokenizer& tokenizer)
      : jinja_(std::move(jinja)), tokens_(std::move(tokens)), tokenizer_(tokenizer) {}

  Result<std::string> render(std::vector<jinja::Message> turns, bool ask) const;
  Result<Opening> open() const;
  Status find_turns();
  Status find_trimming();
  std::string form_of(const std::vector<TokenId>& ids, std::size_t* after_end = nullptr) const;
  std::string form_of(std::string_view markup) const;
  bool is_end(TokenId id) const;
  Opening opening() const;
  std::string turn_after(const std::vector<TokenId>& history, TailKind tail) const;
  bool starts_a_line(const std::vector<TokenId>& history) const;
  std::string after_system(const Opening& begin) const;
  std::vector<TokenId> encode(const std::vector<TokenId>& history, std::string_view before,
                              std::string_view text, std::string_view after) const;
  std::string_view trimmed(std::string_view text) const;

  jinja::Template jinja_;
  TemplateTokens tokens_;
  const Tokenizer& tokenizer_;
  Opening opening_;
  bool tells_time_ = false;
  bool trims_ = false;                  // users' text, at both ends
  std::string close_;                   // a reply's end of turn
  std::string turn_;                    // from there to the user's text
  std::string ask_;                     // from the user's text to the reply
  std::string user_form_, reply_form_;  // how open turns begin, as form_of writes them
  std::vector<std::string> openers_;    // the first control token of each, so written
};

// From tokenizer.chat_template. kNotFound: the model has none (its states use raw).
Result<std::unique_ptr<ChatTemplate>> load_chat_template(const container::GgufFile& file,
                                                         const Tokenizer& tokenizer);
// From a Hugging Face folder's chat_template.jinja, or its tokenizer_config.json.
Result<std::unique_ptr<ChatTemplate>> load_chat_template(const std::filesystem::path& folder,
                                                         const Tokenizer& tokenizer);

// Says in an error of ChatTemplate::load in which file and field the template stands.
Result<std::unique_ptr<ChatTemplate>> told_where(Result<std::unique_ptr<ChatTemplate>> result,
                                                 const std::string& field);

}  // namespace kvfs::text

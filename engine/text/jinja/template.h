// The template language of chat templates: a Jinja2 sized for what real chat_template strings use.
//
// No other Jinja of C++ bounds what a hostile template may cost: llama.cpp's common/jinja recurses
// as deep as the text says and repeats strings without limit. This one refuses what is nested more
// than kMaxHeight deep, and ends a run after 64 Mi steps and bytes. No file, no clock but the one
// given, nothing of the process can be reached from a template. A Template is immutable: any thread
// may render it.
#pragma once

#include <ctime>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/jinja/syntax.h"

namespace kvfs::text::jinja {

struct Message {
  std::string role, content;
};

// What transformers gives a chat template, tools apart.
struct Conversation {
  std::vector<Message> messages;
  bool add_generation_prompt = false;
  std::string bos_token, eos_token;
  std::time_t now = 0;  // strftime_now's, in local time
};

class Template {
 public:
  // kUnsupported names the construct that is not known, and its line; kInvalid what is no Jinja.
  static Result<Template> parse(std::string_view source);

  // kUnsupported: a filter, test or method that is not known; kInvalid: the template refused the
  // conversation (raise_exception), is wrong, or costs too much. All name the line.
  Result<std::string> render(const Conversation& conversation) const;

 private:
  explicit Template(Node body) : body_(std::move(body)) {}
  Node body_;
};

}  // namespace kvfs::text::jinja

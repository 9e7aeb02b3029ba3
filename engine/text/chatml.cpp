#include "engine/text/chatml.h"

#include <algorithm>
#include <array>

#include "engine/text/regex.h"
#include "engine/text/utf8.h"

namespace kvfs::text {
namespace {

constexpr std::string_view kStart = "<|im_start|>";
constexpr std::string_view kEnd = "<|im_end|>";

// The constructs of a ChatML template, in order. Blanks stand for optional white space, ' for
// either quote, {% and %} may carry Jinja's dashes, R and C are the message's role and content, L a
// string.
struct Construct {
  std::string_view pattern;
  bool optional = false;
};
constexpr std::size_t kDefaultSystem = 2;
constexpr std::array<Construct, 6> kConstructs = {{
    {R"({% if not add_generation_prompt is defined %} {% set add_generation_prompt = false %} {% endif %})",
     true},
    {R"({% for message in messages %})"},
    {R"({% if loop\.first and messages\[ 0 \](?:\[ 'role' \]|\.role) != 'system' %} {{ L }} {% endif %})",
     true},
    {R"({{ '<\|im_start\|>' \+ R \+ '\\n' \+ C \+ '<\|im_end\|>(?:' \+ ')?\\n' }})"},
    {R"({% endfor %})"},
    {R"({% if add_generation_prompt %} {{ '<\|im_start\|>assistant\\n' }} {% endif %})"},
}};

std::string expand(std::string_view pattern) {
  std::string out = "\\s*";
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const std::string_view two = pattern.substr(i, 2);
    const bool word = i > 0 && pattern[i - 1] != ' ';
    if (two == "{%" || two == "{{") {
      out += two == "{%" ? R"(\{%-?)" : R"(\{\{-?)";
      ++i;
    } else if (two == "%}" || two == "}}") {
      out += two == "%}" ? R"(-?%\})" : R"(-?\}\})";
      ++i;
    } else if (pattern.substr(i, 3) == R"(\\n)") {
      out += R"((?:\\n|\n))";
      i += 2;
    } else if (pattern[i] == ' ') {
      out += R"(\s*)";
    } else if (pattern[i] == '\'') {
      out += R"(['"])";
    } else if (pattern[i] == 'R' && !word) {
      out += R"(message(?:\[\s*['"]role['"]\s*\]|\.role))";
    } else if (pattern[i] == 'C' && !word) {
      out += R"(message(?:\[\s*['"]content['"]\s*\]|\.content))";
    } else if (pattern[i] == 'L' && !word) {
      out += R"((['"])((?:(?!\1)[^\\]|\\[\s\S])*)\1)";
    } else {
      out += pattern[i];
    }
  }
  return out;
}

// The text that a Jinja string literal stands for.
std::string unescape(std::string_view literal) {
  std::string out;
  for (std::size_t i = 0; i < literal.size(); ++i) {
    if (literal[i] != '\\' || i + 1 == literal.size()) {
      out += literal[i];
      continue;
    }
    switch (const char next = literal[++i]; next) {
      case 'n':
        out += '\n';
        break;
      case 't':
        out += '\t';
        break;
      case 'r':
        out += '\r';
        break;
      default:
        out += next;
    }
  }
  return out;
}

tl::unexpected<Error> unsupported(std::string why) {
  return fail(ErrorCode::kUnsupported, "tokenizer.chat_template", std::move(why),
              "use the model with template=raw");
}

}  // namespace

Result<std::unique_ptr<ChatTemplate>> ChatMlTemplate::load(std::string_view jinja,
                                                           const Tokenizer& tokenizer) {
  if (!is_valid_utf8(jinja)) return unsupported("it is not UTF-8");
  std::unique_ptr<ChatMlTemplate> out(new ChatMlTemplate(tokenizer));
  std::size_t at = 0;
  const auto refuse_here = [&] {
    const std::string_view rest = jinja.substr(at);
    return unsupported("only ChatML templates are understood, and this is none from \"" +
                       std::string(rest.substr(0, valid_utf8_prefix(rest.substr(0, 80)))) +
                       "\" on");
  };
  for (std::size_t i = 0; i < kConstructs.size(); ++i) {
    KVFS_ASSIGN(const Regex regex, Regex::compile(expand(kConstructs[i].pattern)));
    const std::vector<std::string> groups = regex.groups_at(jinja, at);
    if (groups.empty() && kConstructs[i].optional) continue;
    if (groups.empty()) return refuse_here();
    if (i == kDefaultSystem) {
      out->default_system_ = unescape(groups[2]);
      const std::string_view turn = out->default_system_;
      if (!turn.starts_with("<|im_start|>system\n") || !turn.ends_with("<|im_end|>\n")) {
        return refuse_here();
      }
    }
    at += groups[0].size();
  }
  if (jinja.find_first_not_of(" \t\r\n", at) != std::string_view::npos) return refuse_here();

  for (auto [spelling, id] : {std::pair(kStart, &out->start_), std::pair(kEnd, &out->end_)}) {
    const std::vector<TokenId> ids = tokenizer.encode(spelling, SpecialText::kAsControl);
    if (ids.size() != 1 || !tokenizer.is_special(ids[0])) {
      return unsupported("its marker " + std::string(spelling) +
                         " is not a control token of the model");
    }
    *id = ids[0];
  }
  return out;
}

void ChatMlTemplate::add_markup(std::string_view markup, std::vector<TokenId>& out) const {
  const std::vector<TokenId> ids = tokenizer_.encode(markup, SpecialText::kAsControl);
  out.insert(out.end(), ids.begin(), ids.end());
}

void ChatMlTemplate::add_text(std::string_view text, std::vector<TokenId>& out) const {
  const std::vector<TokenId> ids = tokenizer_.encode(text, SpecialText::kAsText);
  out.insert(out.end(), ids.begin(), ids.end());
}

std::size_t ChatMlTemplate::last_marker(const std::vector<TokenId>& history) const {
  const auto found = std::find_if(history.rbegin(), history.rend(),
                                  [this](TokenId id) { return id == start_ || id == end_; });
  return found == history.rend() ? history.size()
                                 : static_cast<std::size_t>(history.rend() - found) - 1;
}

TailKind ChatMlTemplate::tail_of(const std::vector<TokenId>& history) const {
  constexpr std::string_view kUser = "user\n";
  if (history.empty()) return TailKind::kEmpty;
  const std::size_t marker = last_marker(history);
  if (marker == history.size() || history[marker] == end_) return TailKind::kTurnClosed;
  std::string role;
  for (std::size_t i = marker + 1; i < history.size() && role.size() < kUser.size(); ++i) {
    role += tokenizer_.bytes_of(history[i]);
  }
  return role.starts_with(kUser) ? TailKind::kUserOpen : TailKind::kAssistantOpen;
}

std::vector<TokenId> ChatMlTemplate::close(const std::vector<TokenId>& history) const {
  std::vector<TokenId> out;
  switch (tail_of(history)) {
    case TailKind::kEmpty:
      break;
    case TailKind::kTurnClosed:
      if (history.back() == end_) add_text("\n", out);
      break;
    case TailKind::kUserOpen:
    case TailKind::kAssistantOpen:
      out.push_back(end_);
      add_text("\n", out);
  }
  return out;
}

std::vector<TokenId> ChatMlTemplate::feed(const std::vector<TokenId>& history,
                                          std::string_view text) const {
  const TailKind tail = tail_of(history);
  std::vector<TokenId> out;
  if (tail == TailKind::kUserOpen) {
    add_text(text, out);
    return out;
  }
  out = close(history);
  out.push_back(start_);
  add_text((tail == TailKind::kEmpty ? "system\n" : "user\n") + std::string(text), out);
  if (tail == TailKind::kEmpty) {
    out.push_back(end_);
    add_text("\n", out);
  }
  return out;
}

std::vector<TokenId> ChatMlTemplate::prompt(const std::vector<TokenId>& history,
                                            std::string_view text) const {
  if (text.ends_with('\n')) text.remove_suffix(1);
  const TailKind tail = tail_of(history);
  std::vector<TokenId> out;
  if (tail == TailKind::kUserOpen) {
    // The question starts a line of its own below the text that was fed.
    const std::string_view last = tokenizer_.bytes_of(history.back());
    add_text((last.ends_with('\n') ? "" : "\n") + std::string(text), out);
  } else {
    out = close(history);
    if (tail == TailKind::kEmpty) add_markup(default_system_, out);
    out.push_back(start_);
    add_text("user\n" + std::string(text), out);
  }
  out.push_back(end_);
  add_text("\n", out);
  out.push_back(start_);
  add_text("assistant\n", out);
  return out;
}

}  // namespace kvfs::text

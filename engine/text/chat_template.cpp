#include "engine/text/chat_template.h"

#include <algorithm>
#include <array>

namespace kvfs::text {
namespace {

// Texts of the made-up turns: words that no template writes or changes.
constexpr std::string_view kSystem = "Zkvfs0Q";
constexpr std::string_view kFirst = "Zkvfs1Q";
constexpr std::string_view kReply = "Zkvfs2Q";
constexpr std::string_view kSecond = "Zkvfs3Q";
constexpr std::string_view kBlanks = " \t\r\n";

jinja::Message turn(std::string role, std::string_view text) {
  return {std::move(role), std::string(text)};
}

tl::unexpected<Error> unsupported(std::string why) {
  return fail(ErrorCode::kUnsupported, "the chat template", std::move(why));
}

// What stands before, between and after the words; each must stand there once, in order.
Result<std::vector<std::string>> around(const std::string& text,
                                        std::initializer_list<std::string_view> words) {
  std::vector<std::string> pieces;
  std::size_t from = 0;
  for (const std::string_view word : words) {
    const std::size_t at = text.find(word, from);
    if (at == std::string::npos || text.find(word) != at || text.rfind(word) != at) {
      return unsupported(
          "it does not write each turn's text once and in order, so that turns "
          "cannot be appended to a state");
    }
    pieces.push_back(text.substr(from, at - from));
    from = at + word.size();
  }
  pieces.push_back(text.substr(from));
  return pieces;
}

std::string_view without_blanks(std::string_view text) {
  return text.substr(std::min(text.find_first_not_of(kBlanks), text.size()));
}

}  // namespace

Result<std::unique_ptr<ChatTemplate>> ChatTemplate::load(std::string_view source,
                                                         TemplateTokens tokens,
                                                         const Tokenizer& tokenizer) {
  KVFS_ASSIGN(jinja::Template jinja, jinja::Template::parse(source));
  std::unique_ptr<ChatTemplate> out(
      new ChatTemplate(std::move(jinja), std::move(tokens), tokenizer));
  out->tells_time_ = source.find("strftime_now") != std::string_view::npos;
  KVFS_TRY(out->find_turns());
  KVFS_ASSIGN(out->opening_, out->open());
  KVFS_TRY(out->find_trimming());
  return out;
}

Result<std::string> ChatTemplate::render(std::vector<jinja::Message> turns, bool ask) const {
  return jinja_.render({std::move(turns), ask, tokens_.bos, tokens_.eos, std::time(nullptr)});
}

Result<ChatTemplate::Opening> ChatTemplate::open() const {
  Opening out;
  KVFS_ASSIGN(const std::string plain, render({turn("user", kFirst)}, true));
  KVFS_ASSIGN(const std::vector<std::string> pieces, around(plain, {kFirst}));
  out.user = pieces[0];
  const auto both = render({turn("system", kSystem), turn("user", kFirst)}, true);
  if (!both) return out;  // the template refuses a system text
  const auto split = around(*both, {kSystem, kFirst});
  if (!split) return out;  // or leaves it out
  out.system = (*split)[0];
  out.after_system = (*split)[1];
  // Where the template closes the system's turn before it opens the user's, a state may end there.
  const auto alone = render({turn("system", kSystem)}, false);
  if (!alone) return out;
  const auto closed = around(*alone, {kSystem});
  if (closed && (*closed)[0] == out.system && out.after_system.starts_with((*closed)[1]) &&
      out.after_system != (*closed)[1] && !(*closed)[1].empty()) {
    out.after_system = (*closed)[1];
  }
  return out;
}

Status ChatTemplate::find_turns() {
  KVFS_ASSIGN(
      const std::string text,
      render({turn("user", kFirst), turn("assistant", kReply), turn("user", kSecond)}, true));
  KVFS_ASSIGN(const std::vector<std::string> pieces, around(text, {kFirst, kReply, kSecond}));
  const std::string& between = pieces[2];
  ask_ = pieces[3];

  std::size_t end = std::string::npos, length = 0;  // of the first end token between the turns
  for (const TokenId id : tokenizer_.end_tokens()) {
    const std::string_view spelling = tokenizer_.bytes_of(id);
    const std::size_t at = spelling.empty() ? std::string::npos : between.find(spelling);
    if (at == std::string::npos || (end != std::string::npos && at > end)) continue;
    length = at == end ? std::max(length, spelling.size()) : spelling.size();
    end = at;
  }
  const std::size_t cut = end == std::string::npos ? 0 : end + length;
  close_ = between.substr(0, cut);
  turn_ = between.substr(cut);
  if (turn_.empty()) return unsupported("nothing stands before a user's second text");

  // The reply's opening is what follows the user's end of turn.
  std::string_view opening = ask_;
  for (const TokenId id : tokenizer_.end_tokens()) {
    const std::string_view spelling = tokenizer_.bytes_of(id);
    const std::size_t at = spelling.empty() ? std::string::npos : opening.rfind(spelling);
    if (at != std::string::npos) opening.remove_prefix(at + spelling.size());
  }
  // A tokenizer may put a space before them here and none there.
  user_form_ = without_blanks(form_of(without_blanks(turn_)));
  reply_form_ = without_blanks(form_of(without_blanks(opening)));
  for (const std::string_view markup : {without_blanks(turn_), without_blanks(opening)}) {
    const std::vector<TokenId> ids = tokenizer_.encode(markup, SpecialText::kAsControl);
    if (!ids.empty() && tokenizer_.is_special(ids[0])) openers_.push_back(form_of({ids[0]}));
  }
  return {};
}

Status ChatTemplate::find_trimming() {
  const std::string blank = "\n " + std::string(kFirst) + " \n";
  KVFS_ASSIGN(const std::string text, render({turn("user", blank)}, true));
  trims_ = text.find(blank) == std::string::npos;
  return {};
}

bool ChatTemplate::is_end(TokenId id) const {
  const std::vector<TokenId>& ends = tokenizer_.end_tokens();
  return std::find(ends.begin(), ends.end(), id) != ends.end();
}

// The text of tokens with its control tokens told from users' letters: each is a 0xFF, which is no
// part of UTF-8, and its id; `after_end` gets the place behind the last end token.
std::string ChatTemplate::form_of(const std::vector<TokenId>& ids, std::size_t* after_end) const {
  std::string out;
  for (const TokenId id : ids) {
    if (tokenizer_.is_special(id) || is_end(id)) {
      out += '\xFF' + std::to_string(id) + '\xFF';
    } else {
      out += tokenizer_.bytes_of(id);
    }
    if (after_end && is_end(id)) *after_end = out.size();
  }
  return out;
}

std::string ChatTemplate::form_of(std::string_view markup) const {
  return form_of(tokenizer_.encode(markup, SpecialText::kAsControl));
}

TailKind ChatTemplate::tail_of(const std::vector<TokenId>& history) const {
  if (history.empty()) return TailKind::kEmpty;
  std::size_t closed = 0;
  const std::string form = form_of(history, &closed);
  const auto last = [&](const std::string& mark) -> std::ptrdiff_t {
    const std::size_t at = mark.empty() ? std::string::npos : form.rfind(mark);
    return at == std::string::npos || at < closed ? -1 : static_cast<std::ptrdiff_t>(at);
  };
  const std::ptrdiff_t user = last(user_form_);
  const std::ptrdiff_t reply = last(reply_form_);
  std::ptrdiff_t opened = -1;  // by a marker of whatever role
  for (const std::string& opener : openers_) opened = std::max(opened, last(opener));
  if (user >= 0 && user > reply && user >= opened) return TailKind::kUserOpen;
  return reply >= 0 || opened >= 0 ? TailKind::kAssistantOpen : TailKind::kTurnClosed;
}

ChatTemplate::Opening ChatTemplate::opening() const {
  if (!tells_time_) return opening_;
  auto today = open();
  return today ? *std::move(today) : opening_;
}

// What a new user turn finds before it: closes what is open, goes on after an end of turn.
std::string ChatTemplate::turn_after(const std::vector<TokenId>& history, TailKind tail) const {
  if (tail == TailKind::kAssistantOpen) return close_ + turn_;
  if (is_end(history.back())) return turn_;
  return std::string(without_blanks(turn_));
}

std::string_view ChatTemplate::trimmed(std::string_view text) const {
  if (!trims_) return text;
  text = without_blanks(text);
  return text.substr(0, text.find_last_not_of(kBlanks) + 1);
}

std::vector<TokenId> ChatTemplate::encode(const std::vector<TokenId>& history,
                                          std::string_view before, std::string_view text,
                                          std::string_view after) const {
  const std::array<TextPart, 3> parts = {{{before, SpecialText::kAsControl},
                                          {text, SpecialText::kAsText},
                                          {after, SpecialText::kAsControl}}};
  return tokenizer_.encode_after(history, parts);
}

std::vector<TokenId> ChatTemplate::feed(const std::vector<TokenId>& history,
                                        std::string_view text) const {
  const TailKind tail = tail_of(history);
  if (tail == TailKind::kUserOpen) return encode(history, "", text, "");
  if (tail != TailKind::kEmpty) return encode(history, turn_after(history, tail), text, "");
  const Opening begin = opening();
  if (begin.system.empty() && begin.after_system.empty())
    return encode(history, begin.user, text, "");
  return encode(history, begin.system, trimmed(text), begin.after_system);
}

bool ChatTemplate::starts_a_line(const std::vector<TokenId>& history) const {
  return tokenizer_.bytes_of(history.back()).ends_with('\n') ||
         form_of(history).ends_with(user_form_);
}

// What a user's text finds before it where only a system text was fed.
std::string ChatTemplate::after_system(const Opening& begin) const {
  const std::vector<TokenId> history = encode({}, begin.system, kSystem, begin.after_system);
  const TailKind tail = tail_of(history);
  if (tail != TailKind::kUserOpen) return turn_after(history, tail);
  return starts_a_line(history) ? "" : "\n";
}

Result<std::vector<ChatTemplate::Part>> ChatTemplate::conversation(
    const std::vector<jinja::Message>& messages) const {
  const Opening begin = opening();
  const std::string way_out =
      "send system at most once and first, then user and assistant in turns, user last";
  std::vector<Part> out;
  std::string before = begin.user;
  std::string_view expected = "user";
  for (const jinja::Message& message : messages) {
    if (message.role == "system" && out.empty()) {
      if (begin.system.empty() && begin.after_system.empty()) {
        return fail(ErrorCode::kInvalid, "message 1", "the model's template has no system text",
                    "say it in the first user's message");
      }
      out.push_back({begin.system, SpecialText::kAsControl});
      out.push_back({std::string(trimmed(message.content)), SpecialText::kAsText});
      out.push_back({begin.after_system, SpecialText::kAsControl});
      before = after_system(begin);
      continue;
    }
    if (message.role != expected) {
      return fail(ErrorCode::kInvalid, "message " + std::to_string(&message - messages.data() + 1),
                  "its role is " + message.role.substr(0, 40) + " where " + std::string(expected) +
                      " was to speak",
                  way_out);
    }
    if (expected == "assistant") {
      out.push_back({message.content, SpecialText::kAsText});
      before = close_ + turn_;
      expected = "user";
      continue;
    }
    std::string_view text = message.content;
    if (text.ends_with('\n')) text.remove_suffix(1);
    out.push_back({before, SpecialText::kAsControl});
    out.push_back({std::string(trimmed(text)), SpecialText::kAsText});
    out.push_back({ask_, SpecialText::kAsControl});
    expected = "assistant";
  }
  if (messages.empty() || expected != "assistant") {
    return fail(ErrorCode::kInvalid, "messages", "the last is not a user's", way_out);
  }
  return out;
}

std::vector<TokenId> ChatTemplate::prompt(const std::vector<TokenId>& history,
                                          std::string_view text) const {
  if (text.ends_with('\n')) text.remove_suffix(1);
  const TailKind tail = tail_of(history);
  if (tail == TailKind::kUserOpen) {
    // The question starts a line of its own below the text that was fed.
    return encode(history, "", (starts_a_line(history) ? "" : "\n") + std::string(text), ask_);
  }
  if (tail == TailKind::kEmpty) return encode(history, opening().user, trimmed(text), ask_);
  return encode(history, turn_after(history, tail), trimmed(text), ask_);
}

Result<std::unique_ptr<ChatTemplate>> told_where(Result<std::unique_ptr<ChatTemplate>> result,
                                                 const std::string& field) {
  constexpr std::string_view kPlace = "the chat template";
  if (result) return result;
  Error& error = result.error();
  if (error.what.starts_with(kPlace)) error.what.replace(0, kPlace.size(), field);
  error.way_out = "use the model with template=raw";
  return result;
}

Result<std::unique_ptr<ChatTemplate>> load_chat_template(const container::GgufFile& file,
                                                         const Tokenizer& tokenizer) {
  constexpr const char* kField = "tokenizer.chat_template";
  const std::string field = file.path().string() + ": " + kField;
  if (!file.has(kField)) {
    return fail(ErrorCode::kNotFound, field, "the model has no chat template",
                "use the model with template=raw");
  }
  KVFS_ASSIGN(const std::string jinja, file.string_at(kField));
  TemplateTokens tokens;
  for (auto [name, text] : {std::pair("bos", &tokens.bos), std::pair("eos", &tokens.eos)}) {
    const std::string id = std::string("tokenizer.ggml.") + name + "_token_id";
    if (!file.has(id)) continue;
    KVFS_ASSIGN(const std::uint64_t at, file.unsigned_at(id));
    if (at < static_cast<std::uint64_t>(tokenizer.vocab_size())) {
      *text = tokenizer.bytes_of(static_cast<TokenId>(at));
    }
  }
  return told_where(ChatTemplate::load(jinja, std::move(tokens), tokenizer), field);
}

}  // namespace kvfs::text

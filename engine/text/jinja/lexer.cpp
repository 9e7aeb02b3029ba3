// Tags and text of a template, as Jinja2's lexer cuts them with trim_blocks and lstrip_blocks.
#include <algorithm>
#include <array>

#include "engine/text/jinja/syntax.h"
#include "engine/text/utf8.h"

namespace kvfs::text::jinja {
namespace {

constexpr std::string_view kBlanks = " \t\n\r\f\v";
constexpr std::array<std::string_view, 31> kOperators = {
    "**", "//", "==", "!=", ">=", "<=", "+", "-", "*", "/", "%", "~", "<", ">", "=", "(",
    ")",  "[",  "]",  "{",  "}",  ".",  ":", "|", ",", ";", "&", "!", "@", "^", "?"};

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || is_digit(c) ||
         static_cast<unsigned char>(c) >= 0x80;
}

// Jinja2 reads a template's line ends as \n and leaves the last one out.
std::string normalized(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
    } else {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalized(source)) {}

  Result<std::vector<Token>> run() {
    while (at_ < source_.size()) {
      const std::size_t tag = next_tag();
      add_text(tag);
      if (at_ >= source_.size()) break;
      KVFS_TRY(read_tag());
    }
    add(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  bool here(std::string_view what) const {
    return std::string_view(source_).substr(at_).starts_with(what);
  }
  void advance(std::size_t count) {
    count = std::min(count, source_.size() - at_);
    const char* from = source_.data() + at_;
    line_ += static_cast<std::size_t>(std::count(from, from + count, '\n'));
    at_ += count;
  }
  void add(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }
  tl::unexpected<Error> broken(std::string why) const {
    return fail(ErrorCode::kInvalid, at_line(line_), std::move(why));
  }

  std::size_t next_tag() const {
    for (std::size_t i = at_; (i = source_.find('{', i)) != std::string::npos; ++i) {
      if (i + 1 < source_.size() &&
          std::string_view("{%#").find(source_[i + 1]) != std::string::npos)
        return i;
    }
    return source_.size();
  }

  // The text up to a tag, without what the tag's own sign or lstrip_blocks takes from its end.
  void add_text(std::size_t tag) {
    std::string_view text = std::string_view(source_).substr(at_, tag - at_);
    if (tag < source_.size()) {
      const char sign = tag + 2 < source_.size() ? source_[tag + 2] : ' ';
      if (sign == '-') {
        text = text.substr(0, text.find_last_not_of(kBlanks) + 1);
      } else if (sign != '+' && source_[tag + 1] != '{') {
        const std::size_t start = text.rfind('\n') + 1;  // npos + 1 is 0
        const bool line_start = start > 0 || line_starting_;
        if (line_start && text.find_first_not_of(" \t", start) == std::string_view::npos) {
          text = text.substr(0, start);
        }
      }
    }
    if (!text.empty()) add(TokenKind::kText, std::string(text));
    advance(tag - at_);
  }

  void close_tag(std::size_t length, bool strips, bool takes_newline) {
    const std::size_t start = at_;
    advance(length);
    if (strips) {
      const std::size_t end = source_.find_first_not_of(kBlanks, at_);
      advance(std::min(end, source_.size()) - at_);
    }
    if (takes_newline && here("\n")) advance(1);
    line_starting_ = at_ > start && source_[at_ - 1] == '\n';
  }

  Status read_tag() {
    const char kind = source_[at_ + 1];
    if (kind == '#') {
      const std::size_t end = source_.find("#}", at_ + 2);
      if (end == std::string::npos) return broken("the comment never ends");
      const bool strips = end > at_ + 2 && source_[end - 1] == '-';
      advance(end - at_);
      close_tag(2, strips, true);
      return {};
    }
    const bool print = kind == '{';
    add(print ? TokenKind::kPrintBegin : TokenKind::kBlockBegin, "");
    advance(2);
    if (here("-") || here("+")) advance(1);
    return read_expression(print);
  }

  Status read_expression(bool print) {
    const std::string_view end = print ? "}}" : "%}";
    std::string open;  // brackets
    while (true) {
      while (at_ < source_.size() && kBlanks.find(source_[at_]) != std::string_view::npos)
        advance(1);
      if (at_ >= source_.size()) return broken("the tag never ends");
      const bool minus = here("-") && std::string_view(source_).substr(at_ + 1).starts_with(end);
      const bool plus =
          !print && here("+") && std::string_view(source_).substr(at_ + 1).starts_with(end);
      if (open.empty() && (minus || plus || here(end))) {
        add(print ? TokenKind::kPrintEnd : TokenKind::kBlockEnd, "");
        close_tag(minus || plus ? 3 : 2, minus, !print && !plus);
        return {};
      }
      KVFS_TRY(read_token(open));
    }
  }

  Status read_token(std::string& open) {
    const char first = source_[at_];
    if (first == '"' || first == '\'') return read_string(first);
    if (is_digit(first)) return read_number();
    if (is_name(first)) {
      std::size_t end = at_;
      while (end < source_.size() && is_name(source_[end])) ++end;
      add(TokenKind::kName, source_.substr(at_, end - at_));
      advance(end - at_);
      return {};
    }
    const auto* found = std::find_if(kOperators.begin(), kOperators.end(),
                                     [this](std::string_view op) { return here(op); });
    if (found == kOperators.end()) return broken(std::string("a stray \"") + first + "\"");
    if (std::string_view("([{").find(first) != std::string_view::npos) open += first;
    if (std::string_view(")]}").find(first) != std::string_view::npos) {
      if (open.empty()) return broken(std::string("a stray \"") + first + "\"");
      open.pop_back();
    }
    if (open.size() > kMaxHeight) return broken("brackets are nested too deep");
    add(TokenKind::kOperator, std::string(*found));
    advance(found->size());
    return {};
  }

  Status read_number() {
    std::size_t end = at_;
    bool whole = true;
    std::string text;
    const auto digits = [&] {
      for (; end < source_.size() && (is_digit(source_[end]) || source_[end] == '_'); ++end) {
        if (source_[end] != '_') text += source_[end];
      }
    };
    digits();
    if (end + 1 < source_.size() && source_[end] == '.' && is_digit(source_[end + 1])) {
      whole = false;
      text += source_[end++];
      digits();
    }
    if (end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      whole = false;
      text += source_[end++];
      if (end < source_.size() && (source_[end] == '+' || source_[end] == '-')) {
        text += source_[end++];
      }
      digits();
    }
    add(whole ? TokenKind::kInteger : TokenKind::kFloat, std::move(text));
    advance(end - at_);
    return {};
  }

  Status read_string(char quote) {
    std::string text;
    std::size_t i = at_ + 1;
    for (; i < source_.size() && source_[i] != quote; ++i) {
      if (source_[i] != '\\' || i + 1 >= source_.size()) {
        text += source_[i];
        continue;
      }
      ++i;
      KVFS_TRY(unescape(i, text));
    }
    if (i >= source_.size()) return broken("the string never ends");
    add(TokenKind::kString, std::move(text));
    advance(i + 1 - at_);
    return {};
  }

  // Python's escapes; `at` is the letter after the backslash and is left on the last one read.
  Status unescape(std::size_t& at, std::string& out) const {
    constexpr std::string_view kLetters = "ntrabfv0\\'\"";
    constexpr std::string_view kMeanings("\n\t\r\a\b\f\v\0\\'\"", 11);
    const char letter = source_[at];
    if (letter == '\n') return {};
    if (const std::size_t known = kLetters.find(letter); known != std::string_view::npos) {
      out += kMeanings[known];
      return {};
    }
    const std::size_t digits = letter == 'x' ? 2 : letter == 'u' ? 4 : letter == 'U' ? 8 : 0;
    if (digits == 0) {
      out += '\\';
      out += letter;
      return {};
    }
    std::uint32_t code = 0;
    for (std::size_t i = 1; i <= digits; ++i) {
      const char c = at + i < source_.size() ? source_[at + i] : ' ';
      const std::size_t value = std::string_view("0123456789abcdef0123456789ABCDEF").find(c);
      if (value == std::string_view::npos || code > 0x10FFFF) return broken("an escape is cut");
      code = code * 16 + static_cast<std::uint32_t>(value % 16);
    }
    if (!append_utf8(code, out)) return broken("an escape is no character");
    at += digits;
    return {};
  }

  std::string source_;
  std::size_t at_ = 0, line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

Result<std::vector<Token>> tokens_of(std::string_view source) {
  if (source.size() > kMaxTemplateBytes) {
    return fail(
        ErrorCode::kInvalid, "the chat template",
        std::to_string(source.size()) + " bytes, the most is " + std::to_string(kMaxTemplateBytes));
  }
  if (const std::size_t valid = valid_utf8_prefix(source); valid != source.size()) {
    return fail(ErrorCode::kInvalid, "the chat template",
                "it is not UTF-8 at byte " + std::to_string(valid));
  }
  return Lexer(source).run();
}

}  // namespace kvfs::text::jinja

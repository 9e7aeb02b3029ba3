#include "engine/text/normalizer.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include <utf8proc.h>

#include "engine/text/tokenizer.h"
#include "engine/text/utf8.h"

namespace kvfs::text {
namespace {

using Kind = NormalizerStep::Kind;

bool is_ascii(std::string_view text) {
  return std::none_of(text.begin(), text.end(), [](char c) { return (c & 0x80) != 0; });
}

std::string unicode_form(const std::string& text, unsigned options) {
  if (is_ascii(text)) return text;
  struct Free {
    void operator()(utf8proc_uint8_t* bytes) const { std::free(bytes); }
  };
  utf8proc_uint8_t* bytes = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &bytes,
                   static_cast<utf8proc_option_t>(UTF8PROC_STABLE | options));
  const std::unique_ptr<utf8proc_uint8_t, Free> owner(bytes);
  if (size < 0) throw std::bad_alloc();  // the text is valid, so nothing else can fail
  return {reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(size)};
}

std::string lowercase(std::string_view text) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint point = code_point(text.substr(at));
    if (point.code == 0x130) {  // the one letter whose lower case is two
      out += "i\xCC\x87";
    } else {
      append_utf8(
          static_cast<std::uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(point.code))),
          out);
    }
    at += point.length;
  }
  return out;
}

bool is_white(std::string_view text) {
  const std::uint32_t code = code_point(text).code;
  return is_space(code) && (code < 0x1C || code > 0x1F);
}

std::string strip(std::string_view text, bool left, bool right) {
  while (left && !text.empty() && is_white(text)) text.remove_prefix(code_point(text).length);
  while (right && !text.empty()) {
    std::size_t last = text.size() - 1;
    while (last > 0 && (static_cast<unsigned char>(text[last]) & 0xC0U) == 0x80) --last;
    if (!is_white(text.substr(last))) break;
    text.remove_suffix(text.size() - last);
  }
  return std::string(text);
}

std::string replace(const std::string& text, const NormalizerStep& step) {
  std::string out;
  std::size_t from = 0;
  Regex::Scratch scratch;
  while (from <= text.size()) {
    Span match{std::string::npos, std::string::npos};
    if (step.pattern) {
      match = step.pattern->find(text, from, scratch).value_or(match);
    } else if (const std::size_t at = text.find(step.from, from); at != std::string::npos) {
      match = {at, at + step.from.size()};
    }
    if (match.begin == std::string::npos || match.end == match.begin) break;
    out.append(text, from, match.begin - from).append(step.to);
    from = match.end;
  }
  return out.append(text, std::min(from, text.size()));
}

std::string mapped(std::string_view text, const CharsMap& map) {
  std::string out;
  while (!text.empty()) {
    const CharsMap::Match match = map.longest(text);
    const std::size_t length = match.length > 0 ? match.length : code_point(text).length;
    out += match.length > 0 ? match.text : text.substr(0, length);
    text.remove_prefix(length);
  }
  return out;
}

// tokenizers asks for the whole of a short grapheme first, and takes the shortest match for it.
std::string mapped_by_letter(std::string_view text, const CharsMap& map) {
  constexpr std::size_t kShortGrapheme = 6;
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    utf8proc_int32_t state = 0;
    std::size_t end = at;
    CodePoint point = code_point(text.substr(at));
    do {
      end += point.length;
      if (end >= text.size()) break;
      const auto before = static_cast<utf8proc_int32_t>(point.code);
      point = code_point(text.substr(end));
      if (utf8proc_grapheme_break_stateful(before, static_cast<utf8proc_int32_t>(point.code),
                                           &state)) {
        break;
      }
    } while (true);
    const std::string_view grapheme = text.substr(at, end - at);
    at = end;
    if (grapheme.size() < kShortGrapheme) {
      if (const CharsMap::Match match = map.shortest(grapheme); match.length > 0) {
        out += match.text;
        continue;
      }
    }
    for (std::size_t i = 0; i < grapheme.size();) {
      const std::string_view letter = grapheme.substr(i, code_point(grapheme.substr(i)).length);
      const CharsMap::Match match = map.shortest(letter);
      out += match.length > 0 ? match.text : letter;
      i += letter.size();
    }
  }
  return out;
}

std::string collapse(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c != ' ' || (!out.empty() && out.back() != ' ')) out += c;
  }
  return out;
}

std::string words(std::string_view text, const std::string& mark) {
  std::string out;
  bool inside = false;
  while (!text.empty()) {
    const std::size_t length = code_point(text).length;
    if (is_white(text)) {
      inside = false;
    } else {
      if (!inside && !text.starts_with(mark)) out += mark;
      out += text.substr(0, length);
      inside = true;
    }
    text.remove_prefix(length);
  }
  return out;
}

std::string applied(const NormalizerStep& step, std::string text, Before before) {
  switch (step.kind) {
    case Kind::kNfc:
      return unicode_form(text, UTF8PROC_COMPOSE);
    case Kind::kNfd:
      return unicode_form(text, UTF8PROC_DECOMPOSE);
    case Kind::kNfkc:
      return unicode_form(text, UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
    case Kind::kNfkd:
      return unicode_form(text, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT);
    case Kind::kLowercase:
      return lowercase(text);
    case Kind::kStrip:
      return strip(text, step.left, step.right);
    case Kind::kReplace:
      return replace(text, step);
    case Kind::kPrefix:
      if (text.empty() || before == Before::kText) return text;
      if (step.first_only && before != Before::kNothing) return text;
      return step.unless_there && text.starts_with(step.to) ? text : step.to + text;
    case Kind::kCharsMap:
      return mapped(text, *step.map);
    case Kind::kCharsMapByLetter:
      return mapped_by_letter(text, *step.map);
    case Kind::kCollapse:
      return collapse(text);
    case Kind::kWords:
      return words(text, step.to);
    case Kind::kTrimEnd:
      while (text.ends_with(step.from)) text.resize(text.size() - step.from.size());
      return text;
  }
  return text;
}

}  // namespace

Result<CharsMap> CharsMap::read(std::string_view blob) {
  std::uint32_t bytes = 0;
  const auto broken = [](std::string why) {
    return fail(ErrorCode::kInvalid, "precompiled_charsmap", std::move(why));
  };
  if (blob.size() < sizeof bytes) return broken("it is cut");
  std::memcpy(&bytes, blob.data(), sizeof bytes);
  blob.remove_prefix(sizeof bytes);
  if (bytes > blob.size() || bytes % 4 != 0 || bytes == 0) {
    return broken("its trie of " + std::to_string(bytes) + " bytes does not fit");
  }
  CharsMap out;
  out.units_.resize(bytes / 4);
  std::memcpy(out.units_.data(), blob.data(), bytes);
  out.strings_ = blob.substr(bytes);
  if (!is_valid_utf8(out.strings_)) return broken("what it replaces by is not UTF-8");
  return out;
}

// darts-clone's units: a label, an offset to the children, and a flag that a value follows.
CharsMap::Match CharsMap::find(std::string_view text, bool longest) const {
  const auto offset = [](std::uint32_t unit) { return unit >> 10U << ((unit & 0x200U) >> 6U); };
  Match best;
  std::uint32_t at = offset(units_[0]);
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<std::uint8_t>(text[i]);
    at ^= byte;
    if (byte == 0 || at >= units_.size()) break;
    const std::uint32_t unit = units_[at];
    if ((unit & 0x800000FFU) != byte) break;
    at ^= offset(unit);
    if ((unit & 0x100U) == 0) continue;
    const std::size_t place = at < units_.size() ? units_[at] & 0x7FFFFFFFU : strings_.size();
    if (place >= strings_.size()) break;
    const std::string_view rest = std::string_view(strings_).substr(place);
    best = {i + 1, rest.substr(0, rest.find('\0'))};
    if (!longest) break;
  }
  // Half a letter is never replaced, nor by half a letter.
  if (best.length > 0 && (valid_utf8_prefix(text.substr(0, best.length)) != best.length ||
                          !is_valid_utf8(best.text))) {
    return {};
  }
  return best;
}

CharsMap::Match CharsMap::longest(std::string_view text) const { return find(text, true); }
CharsMap::Match CharsMap::shortest(std::string_view text) const { return find(text, false); }

std::string Normalizer::apply(std::string_view text, Before before) const {
  std::string out(text);
  for (const NormalizerStep& step : steps_) out = applied(step, std::move(out), before);
  return out;
}

}  // namespace kvfs::text

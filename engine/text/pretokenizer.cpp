#include "engine/text/pretokenizer.h"

#include <algorithm>
#include <array>

namespace kvfs::text {
namespace {

// The insides of character classes. PCRE2 10.42 knows Unicode 14; these add what later versions
// assigned, as the tokenizers library has it (letters and numbers of Unicode 16; its Digits stage
// follows 17). The one thing added twice, by a newer PCRE2, does no harm.
constexpr std::string_view kLetters =
    R"(\p{L}\x{1C89}\x{1C8A}\x{A7CB}-\x{A7CD}\x{A7DA}-\x{A7DC}\x{105C0}-\x{105F3}\x{10D4A}-\x{10D65})"
    R"(\x{10D6F}-\x{10D85}\x{10EC2}-\x{10EC4}\x{1123F}\x{11240}\x{11380}-\x{11389}\x{1138B}\x{1138E})"
    R"(\x{11390}-\x{113B5}\x{113B7}\x{113D1}\x{113D3}\x{11BC0}-\x{11BE0}\x{11F02}\x{11F04}-\x{11F10})"
    R"(\x{11F12}-\x{11F33}\x{1342F}\x{13441}-\x{13446}\x{13460}-\x{143FA}\x{16100}-\x{1611D})"
    R"(\x{16D40}-\x{16D6C}\x{18CFF}\x{1B132}\x{1B155}\x{1DF25}-\x{1DF2A}\x{1E030}-\x{1E06D})"
    R"(\x{1E4D0}-\x{1E4EB}\x{1E5D0}-\x{1E5ED}\x{1E5F0}\x{2B739}\x{2EBF0}-\x{2EE5D}\x{31350}-\x{323AF})";
constexpr std::string_view kNumbers =
    R"(\p{N}\x{10D40}-\x{10D49}\x{116D0}-\x{116E3}\x{11BF0}-\x{11BF9}\x{11F50}-\x{11F59})"
    R"(\x{16130}-\x{16139}\x{16D70}-\x{16D79}\x{1CCF0}-\x{1CCF9}\x{1D2C0}-\x{1D2D3}\x{1E4F0}-\x{1E4F9})"
    R"(\x{1E5F1}-\x{1E5FA})";
constexpr std::string_view kNewestDigits = R"(\x{11DE0}-\x{11DE9}\x{16FF4}-\x{16FF6})";
// Unicode's White_Space; PCRE2's own \s has U+180E besides, which is none since Unicode 6.3.
constexpr std::string_view kSpaces =
    R"(\x{9}-\x{D}\x{20}\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";

// Letters a pattern may name by a class, as tokenizers understands them. {D} is the program's own.
struct Class {
  std::string_view name, inside;
};
constexpr std::array<Class, 5> kClasses = {{{R"(\p{L})", kLetters},
                                            {R"(\p{N})", kNumbers},
                                            {R"(\s)", kSpaces},
                                            {"{D}", kNewestDigits},
                                            {R"(\w)", R"(\p{L}\p{M}\p{N}\p{Pc})"}}};

// The pattern with those classes spelled out.
std::string expand(std::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const std::string_view rest = pattern.substr(i);
    const auto* found = std::find_if(kClasses.begin(), kClasses.end(), [&](const Class& known) {
      return rest.starts_with(known.name);
    });
    if (found != kClasses.end() && (found->name != "{D}" || in_class)) {
      out += in_class ? "" : "[";
      out += found->inside;
      out += in_class ? "" : "]";
      i += found->name.size() - 1;
    } else if (rest.starts_with(R"(\S)") && !in_class) {
      out.append("[^").append(kSpaces).append("]");
      ++i;
    } else if (rest[0] == '\\' && rest.size() > 1) {
      out.append(rest.substr(0, 2));
      ++i;
    } else {
      if (rest[0] == '[' && !in_class) {
        in_class = true;
      } else if (rest[0] == ']') {
        in_class = false;
      }
      out += rest[0];
    }
  }
  return out;
}

}  // namespace

Status PreTokenizer::add(std::string_view pattern, Cut cut, bool trusted) {
  constexpr std::size_t kLongest = 16 * 1024;
  if (!trusted && pattern.size() > kLongest) {
    return fail(ErrorCode::kInvalid, "the pattern",
                "it has " + std::to_string(pattern.size()) + " bytes, the most is " +
                    std::to_string(kLongest));
  }
  KVFS_ASSIGN(Regex regex, Regex::compile(expand(pattern), trusted));
  stages_.push_back({std::move(regex), cut});
  return {};
}

PreTokenizer::Pieces::Pieces(const PreTokenizer& owner, std::string_view text)
    : owner_(owner), levels_(owner.stages_.size()), whole_(text) {
  if (!levels_.empty()) levels_.front().piece = text;
}

// The next match at or after what is cut, if it is not known yet.
void PreTokenizer::Pieces::find(Level& level, std::size_t stage) {
  if (level.match.end > level.at) return;
  const std::size_t size = level.piece.size();
  level.match =
      owner_.stages_[stage].regex.find(level.piece, level.at, scratch_).value_or(Span{size, size});
  if (level.match.end == level.match.begin) level.match = {size, size};  // of nothing: no match
}

bool PreTokenizer::Pieces::cut(std::size_t stage, std::string_view& piece) {
  Level& level = levels_[stage];
  const Cut how = owner_.stages_[stage].cut;
  while (level.at < level.piece.size()) {
    find(level, stage);
    const std::size_t begin = level.at;
    const bool gap = level.match.begin > level.at;
    level.at = gap ? level.match.begin : level.match.end;
    if (gap && how == Cut::kMergedWithPrevious) level.at = std::max(level.at, level.match.end);
    if (!gap && how == Cut::kMergedWithNext) {
      find(level, stage);
      level.at = level.match.begin;
    }
    if (!gap && how == Cut::kContiguous) {
      for (find(level, stage); level.match.begin == level.at && level.at < level.piece.size();
           find(level, stage)) {
        level.at = level.match.end;
      }
    }
    if ((gap && how == Cut::kOnlyMatches) || (!gap && how == Cut::kRemoved)) continue;
    piece = level.piece.substr(begin, level.at - begin);
    return true;
  }
  return false;
}

bool PreTokenizer::Pieces::next(std::string_view& piece) {
  if (levels_.empty()) {
    piece = std::exchange(whole_, {});
    return !piece.empty();
  }
  std::size_t stage = levels_.size() - 1;
  while (true) {
    if (cut(stage, piece)) {
      if (stage + 1 == levels_.size()) return true;
      levels_[++stage] = Level{piece, 0, {}};
    } else if (stage == 0) {
      return false;
    } else {
      --stage;
    }
  }
}

}  // namespace kvfs::text

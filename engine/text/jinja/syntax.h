// Jinja templates as trees: what the parser makes of a template's text and the interpreter walks.
//
// The dialect is the one chat templates are written in (Jinja2 with trim_blocks and lstrip_blocks,
// as transformers sets it). A tree is never higher than kMaxHeight, so that walking and freeing it
// are bounded. Values; any thread may read one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "codec/base/result.h"

namespace kvfs::text::jinja {

inline constexpr std::size_t kMaxTemplateBytes = std::size_t{1} << 20;
inline constexpr std::size_t kMaxHeight = 200;  // of a tree, and of nested brackets and blocks

enum class TokenKind {
  kText,        // outside of tags, blanks around tags already stripped
  kBlockBegin,  // {%
  kBlockEnd,
  kPrintBegin,  // {{
  kPrintEnd,
  kName,
  kString,  // unescaped
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};
struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;
  std::size_t line = 0;
};

// Errors name the line.
Result<std::vector<Token>> tokens_of(std::string_view source);

enum class NodeKind {
  // Statements. Bodies are kBody nodes.
  kBody,
  kText,         // text
  kPrint,        // expression
  kIf,           // condition, body, condition, body, ..., and the else body if there is one
  kFor,          // target, iterable, body, else body, and the filter if there is one
  kSet,          // target, expression
  kSetBlock,     // target, body
  kMacro,        // text: name; parameters (kKeyword where they have defaults), body
  kFilterBlock,  // kFilter with an empty operand, body
  kBreak,
  kContinue,
  // Expressions.
  kLiteral,  // text, by its type
  kName,
  kList,
  kDict,       // key, value, key, value ...
  kAttribute,  // object; text: name
  kItem,       // object, index
  kSlice,      // object, from, to, step; each may be kNothing
  kCall,       // callee, arguments
  kKeyword,    // text: name; value
  kFilter,     // text: name; operand, arguments
  kTest,       // text: name; operand, arguments
  kNot,
  kNegative,
  kAnd,
  kOr,
  kBinary,       // text: operator
  kCompare,      // text: operators, one a line; operands
  kConditional,  // value, condition, other value or kNothing
  kNothing,
};

enum class LiteralKind : std::uint8_t { kNone, kTrue, kFalse, kInteger, kFloat, kString };

struct Node {
  NodeKind kind = NodeKind::kNothing;
  LiteralKind literal = LiteralKind::kNone;
  std::size_t line = 0;
  std::size_t height = 1;
  std::string text;
  std::vector<Node> children;
};

// The template's kBody. kUnsupported names a tag that is not known, kInvalid what is no Jinja.
Result<Node> parse(std::string_view source);

inline std::string at_line(std::size_t line) {
  return "the chat template, line " + std::to_string(line);
}

}  // namespace kvfs::text::jinja

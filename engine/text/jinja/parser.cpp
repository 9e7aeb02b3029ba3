// Statements, by recursive descent.
#include <algorithm>
#include <initializer_list>

#include "engine/text/jinja/expression_parser.h"

namespace kvfs::text::jinja {
namespace {

class Parser : public ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  Result<Node> run() { return parse_body({}); }

 private:
  using Names = std::initializer_list<std::string_view>;

  // Up to a tag whose name is one of `ends`, that name included; to the end of all without any.
  Result<Node> parse_body(Names ends) {
    const Deeper deeper(depth_);
    if (depth_ > kMaxHeight) return broken("blocks are nested too deep");
    std::vector<Node> statements;
    while (true) {
      switch (now().kind) {
        case TokenKind::kEnd:
          if (ends.size() > 0) return unexpected("{% " + std::string(*std::rbegin(ends)) + " %}");
          return node_of(NodeKind::kBody, "", std::move(statements));
        case TokenKind::kText: {
          KVFS_ASSIGN(Node text, node(NodeKind::kText, take().text));
          statements.push_back(std::move(text));
          break;
        }
        case TokenKind::kPrintBegin: {
          take();
          KVFS_ASSIGN(Node value, parse_tuple());
          if (now().kind != TokenKind::kPrintEnd) return unexpected("}}");
          take();
          KVFS_ASSIGN(Node print, node(NodeKind::kPrint, "", std::move(value)));
          statements.push_back(std::move(print));
          break;
        }
        default: {
          take();  // {%
          if (std::find(ends.begin(), ends.end(), now().text) != ends.end() &&
              now().kind == TokenKind::kName) {
            return node_of(NodeKind::kBody, "", std::move(statements));
          }
          KVFS_ASSIGN(Node statement, parse_statement());
          statements.push_back(std::move(statement));
        }
      }
    }
  }

  Result<Node> parse_statement() {
    const std::size_t line = now().line;
    KVFS_ASSIGN(const std::string tag, name());
    if (tag == "if") return parse_if();
    if (tag == "for") return parse_for();
    if (tag == "set") return parse_set();
    if (tag == "macro") return parse_macro();
    if (tag == "filter") return parse_filter_block();
    if (tag == "generation") return parse_simple_block("endgeneration");
    if (tag == "break" || tag == "continue") {
      if (loops_ == 0) return broken(tag + " outside of a loop");
      KVFS_TRY(end_of_block());
      return node(tag == "break" ? NodeKind::kBreak : NodeKind::kContinue, "");
    }
    return fail(ErrorCode::kUnsupported, at_line(line), "{% " + tag + " %} is not known");
  }

  // A block that only groups: transformers marks the assistant's text with {% generation %}.
  Result<Node> parse_simple_block(std::string_view end) {
    KVFS_TRY(end_of_block());
    KVFS_ASSIGN(Node body, parse_body({end}));
    take();
    KVFS_TRY(end_of_block());
    return body;
  }

  Result<Node> parse_if() {
    std::vector<Node> parts;
    while (true) {
      KVFS_ASSIGN(Node condition, parse_tuple());
      KVFS_TRY(end_of_block());
      KVFS_ASSIGN(Node body, parse_body({"elif", "else", "endif"}));
      parts.push_back(std::move(condition));
      parts.push_back(std::move(body));
      if (take_name("elif")) continue;
      if (take_name("else")) {
        KVFS_TRY(end_of_block());
        KVFS_ASSIGN(Node other, parse_body({"endif"}));
        parts.push_back(std::move(other));
      }
      take();  // endif
      KVFS_TRY(end_of_block());
      return node_of(NodeKind::kIf, "", std::move(parts));
    }
  }

  Result<Node> parse_for() {
    KVFS_ASSIGN(Node target, parse_target());
    if (!take_name("in")) return unexpected("in");
    std::vector<Node> parts;
    KVFS_ASSIGN(Node items, parse_or());
    Node filter;
    if (take_name("if")) {
      KVFS_ASSIGN(filter, parse_expression());
    }
    if (is_name("recursive")) {
      return fail(ErrorCode::kUnsupported, at_line(now().line),
                  "{% for ... recursive %} is not known");
    }
    KVFS_TRY(end_of_block());
    ++loops_;
    KVFS_ASSIGN(Node body, parse_body({"else", "endfor"}));
    --loops_;
    KVFS_ASSIGN(Node other, node(NodeKind::kBody, ""));
    if (take_name("else")) {
      KVFS_TRY(end_of_block());
      KVFS_ASSIGN(other, parse_body({"endfor"}));
    }
    take();  // endfor
    KVFS_TRY(end_of_block());
    parts = {};
    parts.push_back(std::move(target));
    parts.push_back(std::move(items));
    parts.push_back(std::move(body));
    parts.push_back(std::move(other));
    if (filter.kind != NodeKind::kNothing) parts.push_back(std::move(filter));
    return node_of(NodeKind::kFor, "", std::move(parts));
  }

  // NAME, NAME.ATTRIBUTE, or several names.
  Result<Node> parse_target() {
    std::vector<Node> names;
    const bool bracket = take_operator("(");
    do {
      KVFS_ASSIGN(std::string text, name());
      KVFS_ASSIGN(Node target, node(NodeKind::kName, std::move(text)));
      if (names.empty() && take_operator(".")) {
        KVFS_ASSIGN(std::string attribute, name());
        return node(NodeKind::kAttribute, std::move(attribute), std::move(target));
      }
      names.push_back(std::move(target));
    } while (take_operator(","));
    if (bracket) KVFS_TRY(expect(")"));
    if (names.size() == 1) return std::move(names[0]);
    return node_of(NodeKind::kList, "", std::move(names));
  }

  Result<Node> parse_set() {
    KVFS_ASSIGN(Node target, parse_target());
    if (take_operator("=")) {
      KVFS_ASSIGN(Node value, parse_tuple());
      KVFS_TRY(end_of_block());
      return node(NodeKind::kSet, "", std::move(target), std::move(value));
    }
    if (is_operator("|")) {
      return fail(ErrorCode::kUnsupported, at_line(now().line),
                  "{% set NAME | FILTER %} is not known");
    }
    KVFS_ASSIGN(Node body, parse_simple_block("endset"));
    return node(NodeKind::kSetBlock, "", std::move(target), std::move(body));
  }

  Result<Node> parse_macro() {
    KVFS_ASSIGN(std::string macro, name());
    KVFS_TRY(expect("("));
    std::vector<Node> parts;
    while (!take_operator(")")) {
      if (!parts.empty()) KVFS_TRY(expect(","));
      KVFS_ASSIGN(std::string parameter, name());
      if (take_operator("=")) {
        KVFS_ASSIGN(Node value, parse_expression());
        KVFS_ASSIGN(Node keyword, node(NodeKind::kKeyword, std::move(parameter), std::move(value)));
        parts.push_back(std::move(keyword));
      } else {
        KVFS_ASSIGN(Node plain, node(NodeKind::kName, std::move(parameter)));
        parts.push_back(std::move(plain));
      }
    }
    const std::size_t loops = std::exchange(loops_, 0);  // no break out of a macro
    KVFS_ASSIGN(Node body, parse_simple_block("endmacro"));
    loops_ = loops;
    parts.push_back(std::move(body));
    return node_of(NodeKind::kMacro, std::move(macro), std::move(parts));
  }

  Result<Node> parse_filter_block() {
    KVFS_ASSIGN(Node nothing, node(NodeKind::kNothing, ""));
    KVFS_ASSIGN(Node filter, parse_one_filter(std::move(nothing)));
    KVFS_ASSIGN(Node body, parse_simple_block("endfilter"));
    return node(NodeKind::kFilterBlock, "", std::move(filter), std::move(body));
  }

  std::size_t loops_ = 0;  // around the statement
};

}  // namespace

Result<Node> parse(std::string_view source) {
  KVFS_ASSIGN(std::vector<Token> tokens, tokens_of(source));
  return Parser(std::move(tokens)).run();
}

}  // namespace kvfs::text::jinja

// Recursive descent by Jinja2's own grammar (jinja2/parser.py names the same levels).
#include <algorithm>
#include <array>
#include <initializer_list>

#include "engine/text/jinja_syntax.h"

namespace kvfs::text::jinja {
namespace {

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  Result<Node> run() {
    KVFS_ASSIGN(Node body, parse_body({}));
    return body;
  }

 private:
  using Names = std::initializer_list<std::string_view>;

  const Token& now() const { return tokens_[at_]; }
  const Token& after(std::size_t count) const {
    return tokens_[std::min(at_ + count, tokens_.size() - 1)];
  }
  Token take() { return at_ + 1 < tokens_.size() ? std::move(tokens_[at_++]) : tokens_[at_]; }
  bool is_operator(std::string_view op) const {
    return now().kind == TokenKind::kOperator && now().text == op;
  }
  bool is_name(std::string_view name) const {
    return now().kind == TokenKind::kName && now().text == name;
  }
  bool take_operator(std::string_view op) { return is_operator(op) && (take(), true); }
  bool take_name(std::string_view name) { return is_name(name) && (take(), true); }

  tl::unexpected<Error> broken(std::string why) const {
    return fail(ErrorCode::kInvalid, at_line(now().line), std::move(why));
  }
  tl::unexpected<Error> unexpected(std::string_view wanted) const {
    std::string found = "\"" + now().text + "\"";
    if (now().kind == TokenKind::kBlockEnd || now().kind == TokenKind::kPrintEnd) {
      found = "the tag's end";
    }
    if (now().kind == TokenKind::kEnd) found = "the template's end";
    if (now().kind == TokenKind::kText) found = "text";
    return broken("wanted " + std::string(wanted) + ", found " + found);
  }
  Status expect(std::string_view op) {
    if (!take_operator(op)) return unexpected("\"" + std::string(op) + "\"");
    return {};
  }
  Status end_of_block() {
    if (now().kind != TokenKind::kBlockEnd) return unexpected("%}");
    take();
    return {};
  }
  Result<std::string> name() {
    if (now().kind != TokenKind::kName) return unexpected("a name");
    return take().text;
  }

  // A node over its children; refuses a tree that gets too high.
  template <class... Children>
  Result<Node> node(NodeKind kind, std::string text, Children... children) {
    std::vector<Node> list;
    (list.push_back(std::move(children)), ...);
    return node_of(kind, std::move(text), std::move(list));
  }
  Result<Node> node_of(NodeKind kind, std::string text, std::vector<Node> children) {
    Node out;
    out.kind = kind;
    out.line = now().line;
    out.text = std::move(text);
    out.children = std::move(children);
    for (const Node& child : out.children) out.height = std::max(out.height, child.height + 1);
    if (out.height > kMaxHeight) return broken("the template is nested too deep");
    return out;
  }

  // Nested calls of the levels below, which may grow without growing the tree.
  struct Deeper {
    explicit Deeper(std::size_t& count) : count_(count) { ++count_; }
    ~Deeper() { --count_; }
    std::size_t& count_;
  };

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

  // One expression, or several with commas between them.
  Result<Node> parse_tuple() {
    KVFS_ASSIGN(Node first, parse_expression());
    if (!is_operator(",")) return first;
    std::vector<Node> items;
    items.push_back(std::move(first));
    while (take_operator(",")) {
      if (is_operator(")") || now().kind == TokenKind::kBlockEnd) break;
      KVFS_ASSIGN(Node item, parse_expression());
      items.push_back(std::move(item));
    }
    return node_of(NodeKind::kList, "", std::move(items));
  }

  Result<Node> parse_expression() {
    const Deeper deeper(depth_);
    if (depth_ > kMaxHeight) return broken("expressions are nested too deep");
    KVFS_ASSIGN(Node left, parse_or());
    while (take_name("if")) {
      KVFS_ASSIGN(Node condition, parse_or());
      Node other;
      if (take_name("else")) {
        KVFS_ASSIGN(other, parse_expression());
      }
      KVFS_ASSIGN(left, node(NodeKind::kConditional, "", std::move(left), std::move(condition),
                             std::move(other)));
    }
    return left;
  }

  Result<Node> parse_or() {
    KVFS_ASSIGN(Node left, parse_and());
    while (take_name("or")) {
      KVFS_ASSIGN(Node right, parse_and());
      KVFS_ASSIGN(left, node(NodeKind::kOr, "", std::move(left), std::move(right)));
    }
    return left;
  }

  Result<Node> parse_and() {
    KVFS_ASSIGN(Node left, parse_not());
    while (take_name("and")) {
      KVFS_ASSIGN(Node right, parse_not());
      KVFS_ASSIGN(left, node(NodeKind::kAnd, "", std::move(left), std::move(right)));
    }
    return left;
  }

  Result<Node> parse_not() {
    const Deeper deeper(depth_);
    if (depth_ > kMaxHeight) return broken("expressions are nested too deep");
    if (!take_name("not")) return parse_compare();
    KVFS_ASSIGN(Node operand, parse_not());
    return node(NodeKind::kNot, "", std::move(operand));
  }

  Result<Node> parse_compare() {
    constexpr std::array<std::string_view, 6> kComparisons = {"==", "!=", "<", ">", "<=", ">="};
    KVFS_ASSIGN(Node left, parse_binary(0));
    std::vector<Node> operands;
    operands.push_back(std::move(left));
    std::string operators;
    while (true) {
      if (now().kind == TokenKind::kOperator &&
          std::find(kComparisons.begin(), kComparisons.end(), now().text) != kComparisons.end()) {
        operators += take().text + "\n";
      } else if (take_name("in")) {
        operators += "in\n";
      } else if (is_name("not") && after(1).kind == TokenKind::kName && after(1).text == "in") {
        take();
        take();
        operators += "not in\n";
      } else {
        break;
      }
      KVFS_ASSIGN(Node right, parse_binary(0));
      operands.push_back(std::move(right));
    }
    if (operands.size() == 1) return std::move(operands[0]);
    return node_of(NodeKind::kCompare, std::move(operators), std::move(operands));
  }

  // Levels of operators that lean left, the loosest first.
  Result<Node> parse_binary(std::size_t level) {
    static constexpr std::array<std::array<std::string_view, 4>, 4> kLevels = {
        {{"+", "-"}, {"~"}, {"*", "/", "//", "%"}, {"**"}}};
    if (level == kLevels.size()) return parse_unary(true);
    KVFS_ASSIGN(Node left, parse_binary(level + 1));
    while (now().kind == TokenKind::kOperator &&
           std::find(kLevels[level].begin(), kLevels[level].end(), now().text) !=
               kLevels[level].end()) {
      std::string op = take().text;
      KVFS_ASSIGN(Node right, parse_binary(level + 1));
      KVFS_ASSIGN(left, node(NodeKind::kBinary, std::move(op), std::move(left), std::move(right)));
    }
    return left;
  }

  Result<Node> parse_unary(bool filters) {
    const Deeper deeper(depth_);
    if (depth_ > kMaxHeight) return broken("expressions are nested too deep");
    Node operand;
    if (take_operator("-")) {
      KVFS_ASSIGN(Node inner, parse_unary(false));
      KVFS_ASSIGN(operand, node(NodeKind::kNegative, "", std::move(inner)));
    } else if (take_operator("+")) {
      KVFS_ASSIGN(operand, parse_unary(false));
    } else {
      KVFS_ASSIGN(operand, parse_primary());
    }
    KVFS_ASSIGN(operand, parse_postfix(std::move(operand)));
    if (filters) return parse_filters(std::move(operand));
    return operand;
  }

  Result<Node> literal(LiteralKind kind, std::string text) {
    KVFS_ASSIGN(Node out, node(NodeKind::kLiteral, std::move(text)));
    out.literal = kind;
    return out;
  }

  Result<Node> parse_primary() {
    switch (now().kind) {
      case TokenKind::kInteger:
        return literal(LiteralKind::kInteger, take().text);
      case TokenKind::kFloat:
        return literal(LiteralKind::kFloat, take().text);
      case TokenKind::kString: {
        std::string text = take().text;
        while (now().kind == TokenKind::kString) text += take().text;
        return literal(LiteralKind::kString, std::move(text));
      }
      case TokenKind::kName: {
        std::string text = take().text;
        if (text == "true" || text == "True") return literal(LiteralKind::kTrue, "");
        if (text == "false" || text == "False") return literal(LiteralKind::kFalse, "");
        if (text == "none" || text == "None") return literal(LiteralKind::kNone, "");
        return node(NodeKind::kName, std::move(text));
      }
      case TokenKind::kOperator:
        return parse_brackets();
      default:
        return unexpected("a value");
    }
  }

  Result<Node> parse_brackets() {
    if (take_operator("(")) {
      if (take_operator(")")) return node(NodeKind::kList, "");
      KVFS_ASSIGN(Node inner, parse_tuple());
      KVFS_TRY(expect(")"));
      return inner;
    }
    std::vector<Node> items;
    if (take_operator("[")) {
      while (!take_operator("]")) {
        if (!items.empty()) {
          KVFS_TRY(expect(","));
          if (take_operator("]")) break;
        }
        KVFS_ASSIGN(Node item, parse_expression());
        items.push_back(std::move(item));
      }
      return node_of(NodeKind::kList, "", std::move(items));
    }
    if (take_operator("{")) {
      while (!take_operator("}")) {
        if (!items.empty()) {
          KVFS_TRY(expect(","));
          if (take_operator("}")) break;
        }
        KVFS_ASSIGN(Node key, parse_expression());
        KVFS_TRY(expect(":"));
        KVFS_ASSIGN(Node value, parse_expression());
        items.push_back(std::move(key));
        items.push_back(std::move(value));
      }
      return node_of(NodeKind::kDict, "", std::move(items));
    }
    return unexpected("a value");
  }

  Result<Node> parse_postfix(Node object) {
    while (true) {
      if (take_operator(".")) {
        if (now().kind == TokenKind::kInteger) {
          KVFS_ASSIGN(Node index, literal(LiteralKind::kInteger, take().text));
          KVFS_ASSIGN(object, node(NodeKind::kItem, "", std::move(object), std::move(index)));
          continue;
        }
        KVFS_ASSIGN(std::string attribute, name());
        KVFS_ASSIGN(object, node(NodeKind::kAttribute, std::move(attribute), std::move(object)));
      } else if (take_operator("[")) {
        KVFS_ASSIGN(object, parse_subscript(std::move(object)));
      } else if (is_operator("(")) {
        std::vector<Node> parts;
        parts.push_back(std::move(object));
        KVFS_TRY(parse_arguments(parts));
        KVFS_ASSIGN(object, node_of(NodeKind::kCall, "", std::move(parts)));
      } else {
        return object;
      }
    }
  }

  Result<Node> parse_subscript(Node object) {
    std::array<Node, 3> parts;
    std::size_t count = 0;
    bool slice = false;
    while (!take_operator("]")) {
      if (take_operator(":")) {
        slice = true;
        if (++count > 2) return broken("a slice has three parts at most");
        continue;
      }
      if (parts[count].kind != NodeKind::kNothing) return unexpected("]");
      KVFS_ASSIGN(parts[count], parse_expression());
    }
    if (slice) {
      return node(NodeKind::kSlice, "", std::move(object), std::move(parts[0]), std::move(parts[1]),
                  std::move(parts[2]));
    }
    if (parts[0].kind == NodeKind::kNothing) return broken("[] names no item");
    return node(NodeKind::kItem, "", std::move(object), std::move(parts[0]));
  }

  Status parse_arguments(std::vector<Node>& parts) {
    KVFS_TRY(expect("("));
    for (bool first = true; !take_operator(")"); first = false) {
      if (!first) {
        KVFS_TRY(expect(","));
        if (take_operator(")")) break;
      }
      if (is_operator("*") || is_operator("**")) {
        return fail(ErrorCode::kUnsupported, at_line(now().line), "arguments with * are not known");
      }
      if (now().kind == TokenKind::kName && after(1).kind == TokenKind::kOperator &&
          after(1).text == "=") {
        std::string keyword = take().text;
        take();
        KVFS_ASSIGN(Node value, parse_expression());
        KVFS_ASSIGN(Node argument, node(NodeKind::kKeyword, std::move(keyword), std::move(value)));
        parts.push_back(std::move(argument));
      } else {
        KVFS_ASSIGN(Node argument, parse_expression());
        parts.push_back(std::move(argument));
      }
    }
    return {};
  }

  Result<Node> parse_filters(Node operand) {
    while (true) {
      if (take_operator("|")) {
        KVFS_ASSIGN(operand, parse_one_filter(std::move(operand)));
      } else if (take_name("is")) {
        KVFS_ASSIGN(operand, parse_test(std::move(operand)));
      } else {
        return operand;
      }
    }
  }

  Result<Node> parse_one_filter(Node operand) {
    KVFS_ASSIGN(std::string filter, name());
    std::vector<Node> parts;
    parts.push_back(std::move(operand));
    if (is_operator("(")) KVFS_TRY(parse_arguments(parts));
    return node_of(NodeKind::kFilter, std::move(filter), std::move(parts));
  }

  Result<Node> parse_test(Node operand) {
    const bool negative = take_name("not");
    KVFS_ASSIGN(std::string test, name());
    std::vector<Node> parts;
    parts.push_back(std::move(operand));
    if (is_operator("(")) {
      KVFS_TRY(parse_arguments(parts));
    } else if (starts_argument()) {
      KVFS_ASSIGN(Node argument, parse_primary());
      KVFS_ASSIGN(argument, parse_postfix(std::move(argument)));
      parts.push_back(std::move(argument));
    }
    KVFS_ASSIGN(Node out, node_of(NodeKind::kTest, std::move(test), std::move(parts)));
    if (!negative) return out;
    return node(NodeKind::kNot, "", std::move(out));
  }

  bool starts_argument() const {
    switch (now().kind) {
      case TokenKind::kString:
      case TokenKind::kInteger:
      case TokenKind::kFloat:
        return true;
      case TokenKind::kOperator:
        return now().text == "[" || now().text == "{";
      case TokenKind::kName:
        return !is_name("else") && !is_name("or") && !is_name("and") && !is_name("if") &&
               !is_name("is") && !is_name("not") && !is_name("in");
      default:
        return false;
    }
  }

  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  std::size_t depth_ = 0, loops_ = 0;
};

}  // namespace

Result<Node> parse(std::string_view source) {
  KVFS_ASSIGN(std::vector<Token> tokens, tokens_of(source));
  return Parser(std::move(tokens)).run();
}

}  // namespace kvfs::text::jinja

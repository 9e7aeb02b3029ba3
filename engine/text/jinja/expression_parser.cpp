// Expressions by Jinja2's own grammar (jinja2/parser.py names the same levels).
#include "engine/text/jinja/expression_parser.h"

#include <array>

namespace kvfs::text::jinja {

Result<Node> ExpressionParser::parse_tuple() {
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

Result<Node> ExpressionParser::parse_expression() {
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

Result<Node> ExpressionParser::parse_or() {
  KVFS_ASSIGN(Node left, parse_and());
  while (take_name("or")) {
    KVFS_ASSIGN(Node right, parse_and());
    KVFS_ASSIGN(left, node(NodeKind::kOr, "", std::move(left), std::move(right)));
  }
  return left;
}

Result<Node> ExpressionParser::parse_and() {
  KVFS_ASSIGN(Node left, parse_not());
  while (take_name("and")) {
    KVFS_ASSIGN(Node right, parse_not());
    KVFS_ASSIGN(left, node(NodeKind::kAnd, "", std::move(left), std::move(right)));
  }
  return left;
}

Result<Node> ExpressionParser::parse_not() {
  const Deeper deeper(depth_);
  if (depth_ > kMaxHeight) return broken("expressions are nested too deep");
  if (!take_name("not")) return parse_compare();
  KVFS_ASSIGN(Node operand, parse_not());
  return node(NodeKind::kNot, "", std::move(operand));
}

Result<Node> ExpressionParser::parse_compare() {
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
Result<Node> ExpressionParser::parse_binary(std::size_t level) {
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

Result<Node> ExpressionParser::parse_unary(bool filters) {
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

Result<Node> ExpressionParser::literal(LiteralKind kind, std::string text) {
  KVFS_ASSIGN(Node out, node(NodeKind::kLiteral, std::move(text)));
  out.literal = kind;
  return out;
}

Result<Node> ExpressionParser::parse_primary() {
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

Result<Node> ExpressionParser::parse_brackets() {
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

Result<Node> ExpressionParser::parse_postfix(Node object) {
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

Result<Node> ExpressionParser::parse_subscript(Node object) {
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

Status ExpressionParser::parse_arguments(std::vector<Node>& parts) {
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

Result<Node> ExpressionParser::parse_filters(Node operand) {
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

Result<Node> ExpressionParser::parse_one_filter(Node operand) {
  KVFS_ASSIGN(std::string filter, name());
  std::vector<Node> parts;
  parts.push_back(std::move(operand));
  if (is_operator("(")) KVFS_TRY(parse_arguments(parts));
  return node_of(NodeKind::kFilter, std::move(filter), std::move(parts));
}

Result<Node> ExpressionParser::parse_test(Node operand) {
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

bool ExpressionParser::starts_argument() const {
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

}  // namespace kvfs::text::jinja

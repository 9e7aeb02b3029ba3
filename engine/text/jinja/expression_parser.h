// The parser's own parts: tokens in hand, and the grammar of expressions, which statements use.
// Not for other folders; syntax.h is the way in.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/text/jinja/syntax.h"

namespace kvfs::text::jinja {

class ExpressionParser {
 public:
  explicit ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

 protected:
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

  Result<Node> parse_tuple();  // one expression, or several with commas between them
  Result<Node> parse_expression();
  Result<Node> parse_or();
  Result<Node> parse_one_filter(Node operand);

  std::size_t depth_ = 0;

 private:
  Result<Node> parse_and();
  Result<Node> parse_not();
  Result<Node> parse_compare();
  Result<Node> parse_binary(std::size_t level);
  Result<Node> parse_unary(bool filters);
  Result<Node> literal(LiteralKind kind, std::string text);
  Result<Node> parse_primary();
  Result<Node> parse_brackets();
  Result<Node> parse_postfix(Node object);
  Result<Node> parse_subscript(Node object);
  Status parse_arguments(std::vector<Node>& parts);
  Result<Node> parse_filters(Node operand);
  Result<Node> parse_test(Node operand);
  bool starts_argument() const;

  std::vector<Token> tokens_;
  std::size_t at_ = 0;
};

}  // namespace kvfs::text::jinja

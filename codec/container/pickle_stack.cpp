// PickleMachine's values: what the opcodes push, join, remember and call.
#include <charconv>
#include <utility>

#include "codec/container/pickle_machine.h"
#include "codec/container/quote.h"

namespace kvfs::container {
namespace {

constexpr std::size_t kMostDigits = 32;  // bytes of a whole number; torch's magic number has 10

void append_utf8(std::uint32_t point, Bytes& out) {
  const auto tail = [&](unsigned shift) {
    out.push_back(static_cast<std::uint8_t>(0x80 | ((point >> shift) & 0x3f)));
  };
  if (point < 0x80) {
    out.push_back(static_cast<std::uint8_t>(point));
  } else if (point < 0x800) {
    out.push_back(static_cast<std::uint8_t>(0xc0 | (point >> 6)));
    tail(0);
  } else if (point < 0x10000) {
    out.push_back(static_cast<std::uint8_t>(0xe0 | (point >> 12)));
    tail(6);
    tail(0);
  } else {
    out.push_back(static_cast<std::uint8_t>(0xf0 | ((point >> 18) & 7)));
    tail(12);
    tail(6);
    tail(0);
  }
}

}  // namespace

Status PickleMachine::push(PickleNode node) {
  if (tree_.nodes.size() == PickleTree::kMostNodes) {
    return fail(ErrorCode::kTooLarge, "pickle, byte " + std::to_string(at_),
                "more than " + std::to_string(PickleTree::kMostNodes) + " values",
                "save tensors in place of lists of numbers");
  }
  tree_.nodes.push_back(std::move(node));
  stack_.push_back(static_cast<NodeId>(tree_.nodes.size() - 1));
  return {};
}

// Latin-1 as UTF-8 doubles, and comes back as bytes: more than three times the file is no honest
// one, but a text that is decoded again and again.
Result<ByteSpan> PickleMachine::keep(Bytes bytes) {
  kept_ += bytes.size();
  if (kept_ > 4 * bytes_.size() + 1024) return refuse("decodes more bytes than the file can hold");
  tree_.decoded.push_back(std::move(bytes));
  return ByteSpan(tree_.decoded.back());
}

Status PickleMachine::push_id(NodeId id) {
  stack_.push_back(id);
  return {};
}

Result<NodeId> PickleMachine::top() {
  if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) return corrupt("finds no value");
  return stack_.back();
}

Result<NodeId> PickleMachine::pop() {
  KVFS_ASSIGN(const NodeId id, top());
  stack_.pop_back();
  return id;
}

Result<std::vector<NodeId>> PickleMachine::pop_to_mark() {
  if (marks_.empty()) return corrupt("finds no MARK");
  const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
  marks_.pop_back();
  std::vector<NodeId> out(begin, stack_.end());
  stack_.erase(begin, stack_.end());
  return out;
}

Status PickleMachine::push_sequence(Kind kind, std::vector<NodeId> items) {
  if (kind == Kind::kDict && items.size() % 2 != 0) return corrupt("finds a key without a value");
  return push({.kind = kind, .items = std::move(items)});
}

Status PickleMachine::push_tuple(std::size_t size) {
  std::vector<NodeId> items(size);
  for (std::size_t i = size; i-- > 0;) {
    KVFS_ASSIGN(items[i], pop());
  }
  return push_sequence(Kind::kTuple, std::move(items));
}

Status PickleMachine::push_whole_number(ByteSpan digits) {
  if (digits.size() > kMostDigits) return refuse("has a number beyond 256 bits");
  if (digits.size() > sizeof(std::int64_t)) return push({.kind = Kind::kBigInt, .bytes = digits});
  const bool negative = !digits.empty() && (digits.back() & 0x80) != 0;
  std::uint64_t value = negative ? ~std::uint64_t{0} : 0;
  std::copy(digits.begin(), digits.end(), reinterpret_cast<std::uint8_t*>(&value));
  return push({.kind = Kind::kInt, .integer = static_cast<std::int64_t>(value)});
}

Status PickleMachine::push_decimal(std::string_view text) {
  if (text == "00" || text == "01") {
    return push({.kind = Kind::kBool, .integer = text == "01"});
  }
  if (text.ends_with('L')) text.remove_suffix(1);
  std::int64_t value = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem != std::errc{} || end != text.data() + text.size()) {
    return corrupt("has the number " + in_quotes(text));
  }
  return push({.kind = Kind::kInt, .integer = value});
}

Status PickleMachine::push_float(std::string_view text) {
  double value = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem != std::errc{} || end != text.data() + text.size()) {
    return corrupt("has the number " + in_quotes(text));
  }
  return push({.kind = Kind::kFloat, .number = value});
}

Status PickleMachine::push_unicode(std::string_view raw) {
  Bytes out;
  for (std::size_t i = 0; i < raw.size(); ++i) {
    std::uint32_t point = static_cast<std::uint8_t>(raw[i]);
    const std::size_t digits = !raw.substr(i).starts_with('\\')   ? 0
                               : raw.substr(i).starts_with("\\u") ? 4
                               : raw.substr(i).starts_with("\\U") ? 8
                                                                  : 0;
    if (digits != 0) {
      const std::string_view hex = raw.substr(i + 2, digits);
      const auto [end, problem] = std::from_chars(hex.data(), hex.data() + hex.size(), point, 16);
      if (hex.size() != digits || problem != std::errc{} || end != hex.data() + hex.size()) {
        return corrupt("has a broken escape");
      }
      i += 1 + digits;
    }
    append_utf8(point, out);
  }
  KVFS_ASSIGN(const ByteSpan kept, keep(std::move(out)));
  return push({.kind = Kind::kStr, .bytes = kept});
}

Status PickleMachine::push_quoted(std::string_view text) {
  const bool quoted = text.size() >= 2 && text.front() == text.back() &&
                      (text.front() == '\'' || text.front() == '"');
  if (!quoted || text.find('\\') != std::string_view::npos) {
    return refuse("has a text of Python 2 with escapes");
  }
  return push({.kind = Kind::kStr, .bytes = as_bytes(text.substr(1, text.size() - 2))});
}

Status PickleMachine::append(std::vector<NodeId> values, bool to_set) {
  KVFS_ASSIGN(const NodeId id, top());
  PickleNode& node = tree_.nodes[id];
  if (node.kind != (to_set ? Kind::kSet : Kind::kList)) {
    return refuse("adds to " + name_of(id) + ", which is no " + (to_set ? "set" : "list"));
  }
  node.items.insert(node.items.end(), values.begin(), values.end());
  return {};
}

Status PickleMachine::set_items(std::vector<NodeId> pairs) {
  KVFS_ASSIGN(const NodeId id, top());
  PickleNode& node = tree_.nodes[id];
  if (node.kind != Kind::kDict)
    return refuse("sets items of " + name_of(id) + ", which is no dict");
  if (pairs.size() % 2 != 0) return corrupt("finds a key without a value");
  node.items.insert(node.items.end(), pairs.begin(), pairs.end());
  return {};
}

Status PickleMachine::memoize(std::uint64_t index) {
  KVFS_ASSIGN(const NodeId id, top());
  // Python numbers them one after the other; a higher number could only be there to cost memory.
  if (index > tree_.nodes.size()) {
    return corrupt("has the memo number " + std::to_string(index) + " after " +
                   std::to_string(tree_.nodes.size()) + " values");
  }
  if (index >= memo_.size()) memo_.resize(index + 1, kNoNode);
  if (memo_[index] == kNoNode) ++memoized_;
  memo_[index] = id;
  return {};
}

Status PickleMachine::recall(std::uint64_t index) {
  if (index >= memo_.size() || memo_[index] == kNoNode) {
    return corrupt("recalls memo " + std::to_string(index) + ", which was never set");
  }
  return push_id(memo_[index]);
}

}  // namespace kvfs::container

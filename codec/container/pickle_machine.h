// The stack machine behind read_pickle: one object reads one pickle. It keeps node numbers where
// Python's keeps objects, and objects where that calls.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "codec/container/pickle.h"

namespace kvfs::container {

class PickleMachine {
 public:
  explicit PickleMachine(ByteSpan bytes) : bytes_(bytes) {}
  Result<PickleTree> run();

 private:
  using Kind = PickleNode::Kind;

  Status step(std::uint8_t opcode);
  Status step_number(std::uint8_t opcode);
  Status step_text(std::uint8_t opcode);
  Status step_memo(std::uint8_t opcode);
  Status step_container(std::uint8_t opcode);
  Status step_object(std::uint8_t opcode);

  // Of the file.
  Result<ByteSpan> take(std::uint64_t size);
  Result<std::uint64_t> take_number(std::size_t width);
  Result<ByteSpan> take_counted(std::size_t width);  // a length of that width, then bytes
  Result<std::string_view> take_line();

  // Of the stack.
  Status push(PickleNode node);
  Status push_id(NodeId id);
  Result<NodeId> pop();
  Result<NodeId> top();
  Result<std::vector<NodeId>> pop_to_mark();
  Status push_sequence(Kind kind, std::vector<NodeId> items);
  Status push_tuple(std::size_t size);
  Status push_whole_number(ByteSpan little_endian);
  Status push_decimal(std::string_view text);
  Status push_float(std::string_view text);
  Status push_unicode(std::string_view raw);  // protocol 0: Latin-1 with \uXXXX
  Status push_quoted(std::string_view text);  // protocol 0: a literal without escapes
  Status append(std::vector<NodeId> values, bool to_set);
  Status set_items(std::vector<NodeId> pairs);
  Status memoize(std::uint64_t index);
  Status recall(std::uint64_t index);

  Status push_global(std::string_view module, std::string_view name);
  Status call(NodeId callable, NodeId arguments);
  Status encode(NodeId arguments);
  Status make(NodeId type, NodeId arguments);
  Status build();

  tl::unexpected<Error> corrupt(std::string why) const;
  tl::unexpected<Error> refuse(std::string why) const;
  std::string name_of(NodeId id) const;
  Result<ByteSpan> keep(Bytes bytes);  // in the tree, within the budget

  ByteSpan bytes_;
  std::size_t at_ = 0;
  std::uint8_t opcode_ = 0;
  PickleTree tree_;
  std::vector<NodeId> stack_;
  std::vector<std::size_t> marks_;  // stack heights
  std::vector<NodeId> memo_;
  std::size_t memoized_ = 0;  // for MEMOIZE
  std::size_t kept_ = 0;      // bytes in tree_.decoded
  std::string unknown_;       // the first name that is not on the list, never called so far
};

}  // namespace kvfs::container

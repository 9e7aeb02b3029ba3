// PickleMachine's names and calls: what may be named, and what stands in the tree for a call.
#include <utility>

#include "codec/container/pickle_machine.h"
#include "codec/container/pickle_opcodes.h"
#include "codec/container/quote.h"

namespace kvfs::container {

// A name off the list has no PickleGlobal: it may be pushed, so that the refusal can say which
// opcode wanted to do what with it, and no tree with it leaves the machine.
std::string PickleMachine::name_of(NodeId id) const {
  const PickleNode& node = tree_[id];
  if (node.kind == Kind::kGlobal && node.global == nullptr) return std::string(as_text(node.bytes));
  return describe(tree_, id);
}

Status PickleMachine::step_object(std::uint8_t opcode) {
  switch (opcode) {
    case kGlobal:
    case kInst: {
      KVFS_ASSIGN(const std::string_view module, take_line());
      KVFS_ASSIGN(const std::string_view name, take_line());
      KVFS_TRY(push_global(module, name));
      if (opcode == kGlobal) return {};
      KVFS_ASSIGN(const NodeId type, pop());
      return refuse("calls " + name_of(type));
    }
    case kStackGlobal: {
      KVFS_ASSIGN(const NodeId name, pop());
      KVFS_ASSIGN(const NodeId module, pop());
      if (tree_[name].kind != Kind::kStr || tree_[module].kind != Kind::kStr) {
        return corrupt("finds no two texts");
      }
      return push_global(as_text(tree_[module].bytes), as_text(tree_[name].bytes));
    }
    case kReduce: {
      KVFS_ASSIGN(const NodeId arguments, pop());
      KVFS_ASSIGN(const NodeId callable, pop());
      return call(callable, arguments);
    }
    case kNewObj: {
      KVFS_ASSIGN(const NodeId arguments, pop());
      KVFS_ASSIGN(const NodeId type, pop());
      return make(type, arguments);
    }
    case kNewObjEx: {
      KVFS_TRY(pop());
      KVFS_TRY(pop());
      KVFS_ASSIGN(const NodeId type, pop());
      return refuse("calls " + name_of(type) + " with named arguments");
    }
    case kObj: {
      KVFS_ASSIGN(const auto items, pop_to_mark());
      return refuse("calls " + (items.empty() ? "nothing" : name_of(items.front())));
    }
    case kBuild:
      return build();
    case kPersId:
      return refuse("names something outside the file by a text");
    default: {
      KVFS_ASSIGN(const NodeId id, pop());
      return push({.kind = Kind::kPersistent, .arguments = id});
    }
  }
}

Status PickleMachine::push_global(std::string_view module, std::string_view name) {
  if (const PickleGlobal* global = find_pickle_global(module, name)) {
    return push({.kind = Kind::kGlobal, .global = global});
  }
  std::string whole(module.substr(0, 100));
  const std::string quoted = in_quotes(whole.append(".").append(name.substr(0, 100)));
  const std::string shown = quoted.substr(1, quoted.size() - 2);
  if (unknown_.empty()) unknown_ = shown;
  const ByteSpan bytes = as_bytes(shown);
  KVFS_ASSIGN(const ByteSpan kept, keep(Bytes(bytes.begin(), bytes.end())));
  return push({.kind = Kind::kGlobal, .bytes = kept});
}

Status PickleMachine::call(NodeId callable, NodeId arguments) {
  const PickleNode& node = tree_[callable];
  if (node.kind != Kind::kGlobal || node.global == nullptr || !may_be_called(node.global->role)) {
    return refuse("calls " + name_of(callable));
  }
  if (tree_[arguments].kind != Kind::kTuple) return corrupt("finds no tuple of arguments");
  const PickleGlobal* global = node.global;
  const std::vector<NodeId>& items = tree_[arguments].items;
  switch (global->role) {
    case GlobalRole::kEncode:
      return encode(arguments);
    case GlobalRole::kReconstructor:
      if (items.empty()) return corrupt("finds no class");
      return make(items.front(), arguments);
    case GlobalRole::kOrderedDict:  // Python 3 fills it by SETITEMS, Python 2 by a list of pairs
      if (!items.empty()) return refuse("calls collections.OrderedDict with a list");
      return push({.kind = Kind::kDict});
    default:
      return push({.kind = Kind::kObject, .arguments = arguments, .global = global});
  }
}

// A text of code points below 256 as bytes: how protocols 0 to 2 write bytes.
Status PickleMachine::encode(NodeId arguments) {
  const std::vector<NodeId>& items = tree_[arguments].items;
  if (items.size() != 2 || tree_[items[0]].kind != Kind::kStr ||
      !(tree_.is_text(items[1], "latin1") || tree_.is_text(items[1], "latin-1"))) {
    return refuse("calls _codecs.encode for anything but Latin-1");
  }
  const ByteSpan text = tree_[items[0]].bytes;
  Bytes out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] < 0x80) {
      out.push_back(text[i]);
      continue;
    }
    const bool is_pair =
        (text[i] == 0xc2 || text[i] == 0xc3) && i + 1 < text.size() && (text[i + 1] & 0xc0) == 0x80;
    if (!is_pair) return corrupt("encodes a text that is not Latin-1");
    out.push_back(static_cast<std::uint8_t>((text[i] << 6) | (text[i + 1] & 0x3f)));
    ++i;
  }
  KVFS_ASSIGN(const ByteSpan kept, keep(std::move(out)));
  return push({.kind = Kind::kBytes, .bytes = kept});
}

Status PickleMachine::make(NodeId type, NodeId arguments) {
  const PickleNode& node = tree_[type];
  if (node.kind != Kind::kGlobal || node.global == nullptr || !may_be_made(node.global->role)) {
    return refuse("makes an object of " + name_of(type));
  }
  if (tree_[arguments].kind != Kind::kTuple) return corrupt("finds no tuple of arguments");
  if (node.global->role == GlobalRole::kOrderedDict) return push({.kind = Kind::kDict});
  return push({.kind = Kind::kObject, .arguments = arguments, .global = node.global});
}

Status PickleMachine::build() {
  KVFS_ASSIGN(const NodeId state, pop());
  KVFS_ASSIGN(const NodeId id, top());
  PickleNode& node = tree_.nodes[id];
  if (node.kind != Kind::kObject || node.state != kNoNode) {
    return refuse("sets the state of " + name_of(id));
  }
  node.state = state;
  return {};
}

}  // namespace kvfs::container

#include "codec/container/pickle.h"

#include "codec/container/pickle_machine.h"

namespace kvfs::container {

using Kind = PickleNode::Kind;

bool PickleTree::is_object(NodeId id, GlobalRole role) const {
  return nodes[id].kind == Kind::kObject && nodes[id].global->role == role;
}

bool PickleTree::is_text(NodeId id, std::string_view text) const {
  return nodes[id].kind == Kind::kStr && as_text(nodes[id].bytes) == text;
}

NodeId PickleTree::find(NodeId dict, std::string_view key) const {
  const std::vector<NodeId>& items = nodes[dict].items;
  if (nodes[dict].kind != Kind::kDict) return kNoNode;
  for (std::size_t i = items.size(); i >= 2; i -= 2) {
    if (is_text(items[i - 2], key)) return items[i - 1];
  }
  return kNoNode;
}

std::string describe(const PickleTree& tree, NodeId id) {
  const PickleNode& node = tree[id];
  switch (node.kind) {
    case Kind::kNone:
      return "None";
    case Kind::kBool:
      return "a bool";
    case Kind::kInt:
    case Kind::kBigInt:
      return "an int";
    case Kind::kFloat:
      return "a float";
    case Kind::kStr:
      return "a str";
    case Kind::kBytes:
      return "bytes";
    case Kind::kList:
      return "a list";
    case Kind::kTuple:
      return "a tuple";
    case Kind::kSet:
      return "a set";
    case Kind::kDict:
      return "a dict";
    case Kind::kPersistent:
      return "a torch storage";
    case Kind::kGlobal:
    case Kind::kObject:
      break;
  }
  return std::string(node.global->module) + "." + std::string(node.global->name);
}

Result<PickleTree> read_pickle(ByteSpan bytes) { return PickleMachine(bytes).run(); }

}  // namespace kvfs::container

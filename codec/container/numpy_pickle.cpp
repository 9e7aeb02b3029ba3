// TorchFile's NumPy arrays, as pickles have them: _reconstruct with a state, or _frombuffer.
#include <utility>

#include "codec/container/quote.h"
#include "codec/container/torch_file.h"

namespace kvfs::container {
namespace {

using Kind = PickleNode::Kind;

tl::unexpected<Error> refuse(ErrorCode code, std::string why) {
  return fail(code, "numpy array", std::move(why), "save it again as float32, float16 or int64");
}
tl::unexpected<Error> corrupt(std::string why) {
  return refuse(ErrorCode::kCorrupt, std::move(why));
}

struct TypeName {
  std::string_view name;
  DType dtype;
};
constexpr TypeName kTypes[] = {{"f4", DType::kF32}, {"f2", DType::kF16}, {"i4", DType::kI32},
                               {"i8", DType::kI64}, {"u1", DType::kU8},  {"i1", DType::kI8}};

// numpy.dtype('f4', False, True) with the state (3, '<', …): the second names the byte order.
Result<DType> dtype_of(const PickleTree& tree, NodeId id) {
  if (!tree.is_object(id, GlobalRole::kArrayType)) {
    return corrupt("its type is " + describe(tree, id));
  }
  const PickleNode& node = tree[id];
  const std::vector<NodeId>& arguments = tree[node.arguments].items;
  if (arguments.empty() || tree[arguments[0]].kind != Kind::kStr)
    return corrupt("its type has no name");
  if (node.state != kNoNode) {
    const std::vector<NodeId>& state = tree[node.state].items;
    if (state.size() < 2) return corrupt("its type has no byte order");
    if (!tree.is_text(state[1], "<") && !tree.is_text(state[1], "|")) {
      return refuse(ErrorCode::kUnsupported, "not little-endian");
    }
  }
  for (const TypeName& type : kTypes) {
    if (tree.is_text(arguments[0], type.name)) return type.dtype;
  }
  return refuse(ErrorCode::kUnsupported, "type " + in_quotes(as_text(tree[arguments[0]].bytes)) +
                                             " is none of f4, f2, i4, i8, u1, i1");
}

}  // namespace

Result<TensorView> TorchFile::array(NodeId id) {
  const PickleNode& node = tree_[id];
  const bool from_buffer = node.global->role == GlobalRole::kArrayFromBuffer;
  const NodeId facts_id = from_buffer ? node.arguments : node.state;
  if (facts_id == kNoNode) return corrupt("it has no state");
  const std::vector<NodeId>& facts = tree_[facts_id].items;
  if (facts.size() != (from_buffer ? 4 : 5)) return corrupt("its state is another one");
  const NodeId bytes = facts[from_buffer ? 0 : 4];
  const NodeId type = facts[from_buffer ? 1 : 2];
  const NodeId shape = facts[from_buffer ? 2 : 1];
  const NodeId order = facts[3];
  const bool columns_first = from_buffer ? !tree_.is_text(order, "C") : tree_[order].integer != 0;
  if (tree_[bytes].kind != Kind::kBytes) return corrupt("its data are " + describe(tree_, bytes));

  Storage storage;
  KVFS_ASSIGN(storage.dtype, dtype_of(tree_, type));
  storage.bytes = tree_[bytes].bytes;
  Layout layout;
  KVFS_ASSIGN(layout.shape, numbers(shape, "shape"));
  layout.strides.resize(layout.shape.size());
  std::uint64_t elements = 1;
  for (std::size_t i = 0; i < layout.shape.size(); ++i) {
    const std::size_t dim = columns_first ? i : layout.shape.size() - 1 - i;
    layout.strides[dim] = elements;
    if (__builtin_mul_overflow(elements, layout.shape[dim], &elements)) {
      return corrupt("more elements than can be");
    }
  }
  if (elements != storage.bytes.size() / size_of(storage.dtype)) {
    return corrupt(std::to_string(elements) + " elements in " +
                   std::to_string(storage.bytes.size()) + " bytes");
  }
  return view(storage, layout);
}

}  // namespace kvfs::container

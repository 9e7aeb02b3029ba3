// Python's pickle, protocols 0 to 5, read into a tree of plain values (opcodes: CPython's
// Lib/pickletools.py). Nothing is executed: a call is kept as an object of its callable's name and
// its arguments, and only for the names of pickle_globals.h. Any other is refused by name, "opcode
// REDUCE calls os.system".
//
// Bounded: no recursion, a node for at most every byte read and kMostNodes in all, memo numbers no
// higher than the nodes made. Lists may hold themselves, as in Python: who walks a tree bounds his
// depth. A tree refers to the bytes it was read from, which must outlive it. Values; any thread.
// Errors: kCorrupt (cut short, lies), kInvalid (names or calls what it may not), kTooLarge.
#pragma once

#include <cstdint>
#include <deque>
#include <limits>
#include <string_view>
#include <vector>

#include "codec/base/bytes.h"
#include "codec/base/result.h"
#include "codec/container/pickle_globals.h"

namespace kvfs::container {

using NodeId = std::uint32_t;  // an index into PickleTree::nodes
inline constexpr NodeId kNoNode = std::numeric_limits<NodeId>::max();

struct PickleNode {
  enum class Kind : std::uint8_t {
    kNone,
    kBool,        // integer
    kInt,         // integer
    kBigInt,      // bytes: two's complement, little-endian, beyond 64 bits
    kFloat,       // number
    kStr,         // bytes: UTF-8
    kBytes,       // bytes
    kList,        // items
    kTuple,       // items
    kSet,         // items
    kDict,        // items: key, value, key, value, …; collections.OrderedDict too
    kGlobal,      // global
    kObject,      // global(arguments), then state, else kNoNode; or an object of class global
    kPersistent,  // arguments: the id, torch's tuple of a storage
  };
  Kind kind = Kind::kNone;
  NodeId arguments = kNoNode;
  NodeId state = kNoNode;
  std::int64_t integer = 0;
  double number = 0;
  ByteSpan bytes;
  const PickleGlobal* global = nullptr;
  std::vector<NodeId> items;
};

struct PickleTree {
  static constexpr std::size_t kMostNodes = std::size_t{1} << 21;

  std::vector<PickleNode> nodes;
  std::deque<Bytes> decoded;  // texts and bytes that the file has in another form
  NodeId root = kNoNode;
  std::size_t size = 0;  // bytes up to and with STOP

  const PickleNode& operator[](NodeId id) const { return nodes[id]; }
  const PickleNode& top() const { return nodes[root]; }
  bool is_object(NodeId id, GlobalRole role) const;
  bool is_text(NodeId id, std::string_view text) const;
  // The value under a text key, the last one as in Python; kNoNode where there is none.
  NodeId find(NodeId dict, std::string_view key) const;
};

// Reads the pickle that `bytes` begin with; more may follow it.
Result<PickleTree> read_pickle(ByteSpan bytes);

// "a list", "torch.FloatStorage", for errors.
std::string describe(const PickleTree& tree, NodeId id);

}  // namespace kvfs::container

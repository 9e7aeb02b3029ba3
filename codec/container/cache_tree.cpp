// Caches in trees of pickled values.
#include <array>
#include <utility>

#include "codec/container/cache_parts.h"
#include "codec/container/quote.h"
#include "codec/container/torch_file.h"

namespace kvfs::container {
namespace {

using Kind = PickleNode::Kind;

constexpr std::array<std::string_view, 3> kCacheKeys = {"kv", "past_key_values", "cache"};
constexpr char kWayOut[] =
    "save {'input_ids': ids, 'past_key_values': cache} of a DynamicCache or of (key, value) a "
    "layer";

tl::unexpected<Error> refuse(std::string what, std::string why) {
  return refuse_cache(std::move(what), std::move(why), kWayOut);
}

class TreeReader {
 public:
  explicit TreeReader(TorchFile& file) : file_(file), tree_(file.tree()) {}

  Result<CacheParts> read() {
    NodeId cache = tree_.root;
    if (tree_.top().kind == Kind::kDict) {
      KVFS_ASSIGN(cache, cache_of_dict());
      KVFS_TRY(read_ids());
      KVFS_TRY(read_positions());
      read_state();
    }
    KVFS_TRY(is_sequence(cache)                           ? read_pairs(cache)
             : tree_.is_object(cache, GlobalRole::kCache) ? read_dynamic(cache)
                                                          : no_cache(cache));
    return std::move(parts_);
  }

 private:
  bool is_sequence(NodeId id) const {
    return tree_[id].kind == Kind::kTuple || tree_[id].kind == Kind::kList;
  }
  Status no_cache(NodeId id) const { return refuse("cache", "it is " + describe(tree_, id)); }

  Result<NodeId> cache_of_dict() const {
    for (const std::string_view key : kCacheKeys) {
      if (const NodeId found = tree_.find(tree_.root, key); found != kNoNode) return found;
    }
    std::string keys;
    const std::vector<NodeId>& items = tree_.top().items;
    for (std::size_t i = 0; i < items.size() && i < 8; i += 2) {
      if (tree_[items[i]].kind == Kind::kStr)
        keys += " " + in_quotes(as_text(tree_[items[i]].bytes));
    }
    return refuse("cache", "a dict without kv, past_key_values or cache: it has" +
                               (keys.empty() ? " no keys" : keys));
  }

  Result<std::vector<std::int64_t>> numbers(NodeId id, const std::string& what, bool rows = false) {
    if (file_.is_tensor(id)) {
      KVFS_ASSIGN(const TensorView tensor, file_.tensor(id));
      return whole_numbers(tensor, what, rows);
    }
    // A list, or one row in a list, as tokenizers without return_tensors give.
    if (is_sequence(id) && tree_[id].items.size() == 1 && is_sequence(tree_[id].items[0])) {
      id = tree_[id].items[0];
    }
    if (!is_sequence(id)) return refuse(what, "it is " + describe(tree_, id));
    std::vector<std::int64_t> out;
    for (const NodeId item : tree_[id].items) {
      if (tree_[item].kind != Kind::kInt) return refuse(what, "it holds " + describe(tree_, item));
      out.push_back(tree_[item].integer);
    }
    return out;
  }

  Status read_ids() {
    const NodeId id = tree_.find(tree_.root, "input_ids");
    if (id == kNoNode || tree_[id].kind == Kind::kNone) return {};
    KVFS_ASSIGN(parts_.ids, numbers(id, "input_ids"));
    return {};
  }

  Status read_positions() {
    const NodeId id = tree_.find(tree_.root, "positions");
    if (id == kNoNode || tree_[id].kind == Kind::kNone) return {};
    const std::vector<NodeId>& items = tree_[id].items;
    const bool by_layer = is_sequence(id) && !items.empty() && file_.is_tensor(items[0]);
    std::vector<std::vector<std::int64_t>>& out = parts_.positions.emplace();
    if (!by_layer) {
      KVFS_ASSIGN(auto whole, numbers(id, "positions", true));
      out.push_back(std::move(whole));
      return {};
    }
    if (items.size() > kMostLayers) return refuse("positions", "more layers than any model has");
    for (const NodeId item : items) {
      KVFS_ASSIGN(auto one,
                  numbers(item, "positions of layer " + std::to_string(out.size()), true));
      out.push_back(std::move(one));
    }
    return {};
  }

  // Texts by name; what is none is not this project's.
  void read_state() {
    const NodeId id = tree_.find(tree_.root, "state");
    if (id == kNoNode || tree_[id].kind != Kind::kDict) return;
    const std::vector<NodeId>& items = tree_[id].items;
    for (std::size_t i = 0; i + 1 < items.size(); i += 2) {
      const PickleNode& key = tree_[items[i]];
      const PickleNode& value = tree_[items[i + 1]];
      if (key.kind != Kind::kStr || value.kind != Kind::kStr) continue;
      parts_.state.insert_or_assign(std::string(as_text(key.bytes)),
                                    std::string(as_text(value.bytes)));
    }
  }

  Status add_layer(NodeId key, NodeId value) {
    const std::string layer = "layer " + std::to_string(parts_.layers.size());
    if (parts_.layers.size() == kMostLayers) {
      return refuse("cache", "more than " + std::to_string(kMostLayers) + " layers");
    }
    ImportedLayer out;
    for (const auto& [id, to, name] :
         {std::tuple(key, &out.key, ", key"), std::tuple(value, &out.value, ", value")}) {
      if (!file_.is_tensor(id)) return refuse(layer + name, "it is " + describe(tree_, id));
      auto tensor = file_.tensor(id);
      if (!tensor) {
        Error error = std::move(tensor).error();
        error.what = layer + name + ", " + error.what;
        return fail(std::move(error));
      }
      *to = *std::move(tensor);
    }
    parts_.layers.push_back(std::move(out));
    return {};
  }

  // Iterating a DynamicCache of transformers 5 gives a third thing: the window, None or one number.
  Result<bool> is_window(NodeId id) {
    if (tree_[id].kind == Kind::kNone) return true;
    if (!file_.is_tensor(id)) return false;
    KVFS_ASSIGN(const TensorView tensor, file_.tensor(id));
    return tensor.bytes.size() == size_of(tensor.dtype);
  }

  Status read_pairs(NodeId list) {
    for (const NodeId pair : tree_[list].items) {
      const std::string layer = "layer " + std::to_string(parts_.layers.size());
      if (!is_sequence(pair)) return refuse(layer, "it is " + describe(tree_, pair));
      const std::vector<NodeId>& items = tree_[pair].items;
      bool is_pair = items.size() == 2;
      if (items.size() == 3) {
        KVFS_ASSIGN(is_pair, is_window(items[2]));
      }
      if (!is_pair) {
        return refuse(layer,
                      "it is no (key, value): it has " + std::to_string(items.size()) + " parts");
      }
      KVFS_TRY(add_layer(items[0], items[1]));
    }
    return {};
  }

  Status read_dynamic(NodeId cache) {
    const NodeId state = tree_[cache].state;
    if (state == kNoNode) return refuse("DynamicCache", "it holds nothing");
    const NodeId layers = tree_.find(state, "layers");
    if (layers != kNoNode) return read_layers(layers);
    const NodeId keys = tree_.find(state, "key_cache");
    const NodeId values = tree_.find(state, "value_cache");
    if (keys == kNoNode || values == kNoNode || !is_sequence(keys) || !is_sequence(values)) {
      return refuse("DynamicCache", "it has neither layers nor key_cache and value_cache");
    }
    const std::vector<NodeId>& of_keys = tree_[keys].items;
    const std::vector<NodeId>& of_values = tree_[values].items;
    if (of_keys.size() != of_values.size()) {
      return refuse("DynamicCache", std::to_string(of_keys.size()) + " keys, " +
                                        std::to_string(of_values.size()) + " values");
    }
    for (std::size_t i = 0; i < of_keys.size(); ++i) KVFS_TRY(add_layer(of_keys[i], of_values[i]));
    return {};
  }

  Status read_layers(NodeId layers) {
    if (!is_sequence(layers))
      return refuse("DynamicCache, layers", "it is " + describe(tree_, layers));
    for (const NodeId layer : tree_[layers].items) {
      const std::string what = "layer " + std::to_string(parts_.layers.size());
      if (!tree_.is_object(layer, GlobalRole::kCacheLayer) || tree_[layer].state == kNoNode) {
        return refuse(what, "it is " + describe(tree_, layer) + " without a state");
      }
      const NodeId keys = tree_.find(tree_[layer].state, "keys");
      const NodeId values = tree_.find(tree_[layer].state, "values");
      if (keys == kNoNode || values == kNoNode) return refuse(what, "no keys, or no values");
      KVFS_TRY(add_layer(keys, values));
    }
    return {};
  }

  TorchFile& file_;
  const PickleTree& tree_;
  CacheParts parts_;
};

}  // namespace

Result<CacheParts> cache_in_tree(TorchFile& file) { return TreeReader(file).read(); }

}  // namespace kvfs::container

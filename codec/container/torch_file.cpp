#include "codec/container/torch_file.h"

#include <algorithm>
#include <utility>

#include "codec/container/quote.h"
#include "codec/container/strided.h"

namespace kvfs::container {
namespace {

using Kind = PickleNode::Kind;

constexpr std::uint8_t kMagic[] = {0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};
constexpr std::int64_t kStreamVersion = 1001;
constexpr char kWayOut[] = "save it again with torch.save, on the CPU, as it is in memory";

tl::unexpected<Error> refuse(ErrorCode code, std::string what, std::string why) {
  return fail(code, std::move(what), std::move(why), kWayOut);
}
tl::unexpected<Error> corrupt(std::string what, std::string why) {
  return refuse(ErrorCode::kCorrupt, std::move(what), std::move(why));
}

bool is_magic(const PickleTree& tree) {
  return tree.top().kind == Kind::kBigInt && std::ranges::equal(tree.top().bytes, kMagic);
}

// The tuple that names a storage: ('storage', torch.FloatStorage, key, place, elements[, None]).
struct StorageName {
  std::string_view key;
  DType dtype = DType::kU8;
  std::uint64_t elements = 0;
};

Result<StorageName> storage_name(const PickleTree& tree, NodeId id) {
  const std::string what = "torch storage";
  const std::vector<NodeId>& items = tree[tree[id].arguments].items;
  if (tree[tree[id].arguments].kind != Kind::kTuple || items.size() < 5 || items.size() > 6 ||
      !tree.is_text(items[0], "storage")) {
    return corrupt(what, "its id is no tuple of a storage");
  }
  const PickleNode& type = tree[items[1]];
  if (type.kind != Kind::kGlobal || type.global->role != GlobalRole::kStorage) {
    return corrupt(what, "its type is " + describe(tree, items[1]));
  }
  if (!type.global->dtype) {
    return refuse(ErrorCode::kUnsupported, what,
                  describe(tree, items[1]) + ": only fp32, fp16, bf16 and integers are taken");
  }
  const PickleNode& elements = tree[items[4]];
  if (tree[items[2]].kind != Kind::kStr || elements.kind != Kind::kInt || elements.integer < 0) {
    return corrupt(what, "no key, or no number of elements");
  }
  if (items.size() == 6 && tree[items[5]].kind != Kind::kNone) {
    return refuse(ErrorCode::kUnsupported, what,
                  "a view on another storage, as torch before 0.4 wrote");
  }
  return StorageName{as_text(tree[items[2]].bytes), *type.global->dtype,
                     static_cast<std::uint64_t>(elements.integer)};
}

}  // namespace

Result<std::unique_ptr<TorchFile>> TorchFile::open(ByteSpan file) {
  std::unique_ptr<TorchFile> out(new TorchFile);
  out->file_size_ = file.size();
  if (ZipFile::is_zip(file)) {
    KVFS_TRY(out->open_zip(file));
    return out;
  }
  KVFS_ASSIGN(auto first, read_pickle(file));
  if (is_magic(first)) {
    KVFS_TRY(out->open_stream(file, std::move(first)));
  } else {
    out->tree_ = std::move(first);
  }
  return out;
}

Status TorchFile::open_zip(ByteSpan file) {
  KVFS_ASSIGN(auto zip, ZipFile::open(file));
  zip_.emplace(std::move(zip));
  constexpr std::string_view kTree = "/data.pkl";
  const auto& entries = zip_->entries();
  const auto tree = std::ranges::find_if(
      entries, [&](const auto& entry) { return entry.first.ends_with(kTree); });
  if (tree == entries.end()) {
    return refuse(ErrorCode::kInvalid, "torch file", "a zip file without data.pkl");
  }
  prefix_ = tree->first.substr(0, tree->first.size() - kTree.size() + 1);
  if (entries.contains(prefix_ + "byteorder")) {
    KVFS_ASSIGN(const ByteSpan order, zip_->bytes_of(prefix_ + "byteorder"));
    if (as_text(order) != "little") {
      return refuse(ErrorCode::kUnsupported, "torch file",
                    "byte order " + in_quotes(as_text(order)));
    }
  }
  KVFS_ASSIGN(const ByteSpan bytes, zip_->bytes_of(tree->first));
  KVFS_ASSIGN(tree_, read_pickle(bytes));
  return {};
}

Status TorchFile::open_stream(ByteSpan file, PickleTree first) {
  ByteSpan rest = file.subspan(first.size);
  const auto next = [&]() -> Result<PickleTree> {
    KVFS_ASSIGN(auto tree, read_pickle(rest));
    rest = rest.subspan(tree.size);
    return tree;
  };
  KVFS_ASSIGN(const PickleTree version, next());
  if (version.top().kind != Kind::kInt || version.top().integer != kStreamVersion) {
    return refuse(ErrorCode::kUnsupported, "torch file", "a version of the stream other than 1001");
  }
  KVFS_ASSIGN(const PickleTree system, next());
  const NodeId little = system.find(system.root, "little_endian");
  if (little == kNoNode || system[little].kind != Kind::kBool || system[little].integer == 0) {
    return refuse(ErrorCode::kUnsupported, "torch file", "not little-endian");
  }
  KVFS_ASSIGN(tree_, next());
  KVFS_ASSIGN(const PickleTree keys, next());
  return read_stream_storages(rest, keys);
}

// Storages follow in the order of the keys: an i64 of elements, then their bytes.
Status TorchFile::read_stream_storages(ByteSpan rest, const PickleTree& keys) {
  std::map<std::string_view, StorageName> names;
  for (NodeId id = 0; id < tree_.nodes.size(); ++id) {
    if (tree_[id].kind != Kind::kPersistent) continue;
    KVFS_ASSIGN(const StorageName name, storage_name(tree_, id));
    names.emplace(name.key, name);
  }
  ByteReader reader(rest);
  for (const NodeId id : keys.top().items) {
    const std::string_view key = as_text(keys[id].bytes);
    const std::string what = "torch storage " + in_quotes(key);
    const auto found = names.find(key);
    if (found == names.end()) return corrupt(what, "no tensor names it");
    const auto elements = reader.number<std::uint64_t>();
    const std::size_t width = size_of(found->second.dtype);
    if (elements != found->second.elements || elements > reader.left() / width) {
      return corrupt(what, "it has " + std::to_string(elements) + " elements, " +
                               std::to_string(found->second.elements) + " are due, " +
                               std::to_string(reader.left()) + " bytes are left");
    }
    by_key_.emplace(key, Storage{found->second.dtype, reader.raw(elements * width)});
  }
  return {};
}

Result<TorchFile::Storage> TorchFile::storage(NodeId id) {
  if (tree_[id].kind == Kind::kPersistent) return persistent_storage(id);
  if (tree_.is_object(id, GlobalRole::kLoadFromBytes)) return nested_storage(id);
  return corrupt("tensor", "its storage is " + describe(tree_, id));
}

Result<TorchFile::Storage> TorchFile::persistent_storage(NodeId id) {
  KVFS_ASSIGN(const StorageName name, storage_name(tree_, id));
  const std::string what = "torch storage " + in_quotes(name.key);
  if (!zip_) {
    const auto found = by_key_.find(name.key);
    if (found == by_key_.end()) return corrupt(what, "its bytes are not in the file");
    return found->second;
  }
  KVFS_ASSIGN(const ByteSpan bytes,
              zip_->bytes_of(prefix_ + "data/" + std::string(name.key.substr(0, 100))));
  if (bytes.size() / size_of(name.dtype) != name.elements) {
    return corrupt(what, "it has " + std::to_string(bytes.size()) + " bytes for " +
                             std::to_string(name.elements) + " elements of " +
                             std::string(name_of(name.dtype)));
  }
  return Storage{name.dtype, bytes};
}

// The file inside is that of one storage: it cannot nest another.
Result<TorchFile::Storage> TorchFile::nested_storage(NodeId id) {
  if (const auto known = nested_.find(id); known != nested_.end()) return known->second;
  const std::vector<NodeId>& arguments = tree_[tree_[id].arguments].items;
  if (arguments.size() != 1 || tree_[arguments[0]].kind != Kind::kBytes) {
    return corrupt("torch.storage._load_from_bytes", "its argument is not bytes");
  }
  KVFS_ASSIGN(auto file, open(tree_[arguments[0]].bytes));
  if (file->tree().top().kind != Kind::kPersistent) {
    return corrupt("torch.storage._load_from_bytes",
                   "the file inside holds " + describe(file->tree(), file->tree().root));
  }
  KVFS_ASSIGN(const Storage inside, file->persistent_storage(file->tree().root));
  nested_files_.push_back(std::move(file));
  nested_.emplace(id, inside);
  return inside;
}

bool TorchFile::is_tensor(NodeId id) const {
  if (tree_[id].kind != Kind::kObject) return false;
  switch (tree_[id].global->role) {
    case GlobalRole::kRebuildTensor:
    case GlobalRole::kRebuildParameter:
    case GlobalRole::kArrayReconstruct:
    case GlobalRole::kArrayFromBuffer:
      return true;
    default:
      return false;
  }
}

Result<TensorView> TorchFile::tensor(NodeId id) {
  if (tree_.is_object(id, GlobalRole::kRebuildParameter)) {
    const std::vector<NodeId>& arguments = tree_[tree_[id].arguments].items;
    if (arguments.empty()) return corrupt("torch parameter", "it has no tensor");
    id = arguments[0];
  }
  if (tree_.is_object(id, GlobalRole::kRebuildTensor)) return torch_tensor(id);
  if (is_tensor(id) && !tree_.is_object(id, GlobalRole::kRebuildParameter)) return array(id);
  return corrupt("tensor", "it is " + describe(tree_, id));
}

Result<TensorView> TorchFile::torch_tensor(NodeId id) {
  const std::vector<NodeId>& arguments = tree_[tree_[id].arguments].items;
  if (arguments.size() < 4 || tree_[arguments[1]].kind != Kind::kInt ||
      tree_[arguments[1]].integer < 0) {
    return corrupt("tensor", "its arguments are not storage, offset, size, stride");
  }
  Layout layout;
  layout.offset = static_cast<std::uint64_t>(tree_[arguments[1]].integer);
  KVFS_ASSIGN(layout.shape, numbers(arguments[2], "size"));
  KVFS_ASSIGN(layout.strides, numbers(arguments[3], "stride"));
  KVFS_ASSIGN(const Storage found, storage(arguments[0]));
  return view(found, layout);
}

Result<TensorView> TorchFile::view(const Storage& storage, const Layout& layout) {
  KVFS_ASSIGN(const Strided strided, Strided::make(layout.offset, layout.shape, layout.strides,
                                                   size_of(storage.dtype), storage.bytes));
  if (strided.is_contiguous()) return TensorView{storage.dtype, layout.shape, strided.bytes()};
  copied_ += strided.size();
  if (copied_ > std::max(file_size_, storage.bytes.size())) {
    return refuse(ErrorCode::kTooLarge, "tensor", "the file's tensors are larger than its bytes");
  }
  copies_.push_back(strided.copy());
  return TensorView{storage.dtype, layout.shape, copies_.back()};
}

// Whole numbers of a tuple, a list or a torch.Size.
Result<std::vector<std::uint64_t>> TorchFile::numbers(NodeId id, const char* field) const {
  if (tree_.is_object(id, GlobalRole::kSize) && !tree_[tree_[id].arguments].items.empty()) {
    id = tree_[tree_[id].arguments].items[0];
  }
  const PickleNode& node = tree_[id];
  if (node.kind != Kind::kTuple && node.kind != Kind::kList) {
    return corrupt("tensor", std::string(field) + " is " + describe(tree_, id));
  }
  std::vector<std::uint64_t> out;
  for (const NodeId item : node.items) {
    if (tree_[item].kind != Kind::kInt || tree_[item].integer < 0) {
      return corrupt("tensor", std::string(field) + " is not of whole numbers");
    }
    out.push_back(static_cast<std::uint64_t>(tree_[item].integer));
  }
  return out;
}

}  // namespace kvfs::container

// What torch.save and pickle.dump write: torch's zip form (data.pkl and data/KEY), its older stream
// form (magic number, version, system, tree, keys, storages), and plain pickles, whose tensors nest
// a stream of either form in torch.storage._load_from_bytes. NumPy arrays in pickles are tensors
// too. (Formats: torch/serialization.py, torch/_utils.py, numpy/core/src/multiarray/methods.c,
// array_reduce.)
//
// Tensors are views into the file where they are contiguous, else copies kept here; the file's
// bytes must outlive this object. One thread at a time. Errors: those of read_pickle and ZipFile;
// kUnsupported for element types, byte orders and expanded tensors.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "codec/container/pickle.h"
#include "codec/container/tensor_view.h"
#include "codec/container/zip_file.h"

namespace kvfs::container {

class TorchFile {
 public:
  static Result<std::unique_ptr<TorchFile>> open(ByteSpan file);

  const PickleTree& tree() const { return tree_; }
  // A node that tensor() can be asked for.
  bool is_tensor(NodeId id) const;
  Result<TensorView> tensor(NodeId id);

 private:
  struct Storage {
    DType dtype = DType::kU8;
    ByteSpan bytes;
  };
  struct Layout {  // in elements
    std::uint64_t offset = 0;
    std::vector<std::uint64_t> shape;
    std::vector<std::uint64_t> strides;
  };

  TorchFile() = default;
  Status open_zip(ByteSpan file);
  Status open_stream(ByteSpan file, PickleTree first);
  Status read_stream_storages(ByteSpan rest, const PickleTree& keys);

  Result<Storage> storage(NodeId id);
  Result<Storage> persistent_storage(NodeId id);
  Result<Storage> nested_storage(NodeId id);
  Result<TensorView> torch_tensor(NodeId id);
  Result<TensorView> array(NodeId id);
  Result<TensorView> view(const Storage& storage, const Layout& layout);
  Result<std::vector<std::uint64_t>> numbers(NodeId id, const char* field) const;

  std::size_t file_size_ = 0;
  PickleTree tree_;
  std::optional<ZipFile> zip_;
  std::string prefix_;                                  // of the zip's entries
  std::map<std::string, Storage, std::less<>> by_key_;  // of the stream form
  std::map<NodeId, Storage> nested_;                    // by the call of _load_from_bytes
  std::deque<std::unique_ptr<TorchFile>> nested_files_;
  std::deque<Bytes> copies_;
  std::size_t copied_ = 0;
};

}  // namespace kvfs::container

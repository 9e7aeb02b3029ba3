// Pickles as state bundles have them, written op by op, without a memo. One thread.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "codec/base/bytes.h"
#include "codec/base/dtype.h"
#include "codec/container/pickle_opcodes.h"
#include "codec/container/state_bundle.h"

namespace kvfs::container {

class PickleWriter {
 public:
  explicit PickleWriter(std::uint8_t protocol);

  void op(PickleOpcode opcode) { out_.number(static_cast<std::uint8_t>(opcode)); }
  void raw(std::string_view bytes) { out_.raw(as_bytes(bytes)); }
  void text(std::string_view value);
  void whole(std::uint64_t value);  // below 2^63; always as many bytes
  void global(std::string_view module, std::string_view name);
  // The tuple that names a storage, as a persistent id; the stream form's has one field more.
  enum class Within { kZip, kStream };
  void storage(DType dtype, std::string_view key, std::uint64_t elements, Within within);
  // A contiguous tensor; `storage` writes what is its storage.
  void tensor(const std::vector<std::uint64_t>& shape, const std::function<void()>& storage);

  // What was written since it was last asked for.
  Bytes take();

 private:
  void wholes(const std::vector<std::uint64_t>& values);
  ByteWriter out_;
};

// A tensor of a bundle's tree: numbers, or keys or values.
struct BundleTensor {
  DType dtype = DType::kI64;
  std::vector<std::uint64_t> shape;
  const std::vector<std::int32_t>* numbers = nullptr;  // null: keys or values
  std::size_t layer = 0;
  KvHalf half = KvHalf::kKey;

  std::uint64_t elements() const;
};

// The dict that every pickled bundle is; `tensor` writes each, in order.
void put_tree(PickleWriter& out, const BundleSpec& spec,
              const std::function<void(const BundleTensor&)>& tensor);

}  // namespace kvfs::container

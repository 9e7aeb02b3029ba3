// A whole state as one .pt file, of which any range can be read without building it: its size is known
// from shapes alone, and tensors are asked for as they are read.
//
// It is what torch.load(weights_only=True) reads into {"input_ids": i64 [1, n], "positions": i64
// [T] (or a list, one a layer), "past_key_values": [(K, V), …] of [1, heads, T, width], "state":
// {text: text}}: a zip of stored entries, data 64-aligned, as torch.save writes it (torch/csrc,
// caffe2/serialize/inline_container.cc). A zip wants an entry's CRC-32 in the directory and before
// its data, so before it was read. The entries of keys and values have 0 there, as torch itself
// writes after torch.serialization.set_crc32_options(False): torch.load does not check them; unzip
// and Python's zipfile complain of these entries, and of these only.
//
// Immutable, any thread; the same spec gives the same bytes, and the size follows from the numbers
// of tokens and positions, whatever they are. Errors: kInvalid for a spec that is none.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "codec/base/bytes.h"
#include "codec/base/dtype.h"
#include "codec/base/result.h"

namespace kvfs::container {

enum class KvHalf { kKey, kValue };

struct BundleLayer {
  std::uint64_t heads = 0;
  std::uint64_t tokens = 0;  // T
  std::uint64_t key_width = 0;
  std::uint64_t value_width = 0;
};

struct BundleSpec {
  DType dtype = DType::kBF16;  // of keys and values: kF32, kF16 or kBF16
  std::vector<BundleLayer> layers;
  std::vector<std::int32_t> tokens;                  // all n that the state has read
  std::vector<std::vector<std::int32_t>> positions;  // one for all layers, or one a layer; T each
  std::map<std::string, std::string> state;
};

class StateBundle {
 public:
  // Fills `out` with the bytes from `offset` on of a layer's keys or values, [heads, T, width]
  // row-major.
  using ReadTensor = std::function<Status(std::size_t layer, KvHalf half, std::uint64_t offset,
                                          MutableByteSpan out)>;

  static Result<StateBundle> make(const BundleSpec& spec);

  std::uint64_t size() const { return size_; }
  // Bytes from `offset` on; returns how many, fewer than asked for only at the end.
  Result<std::size_t> read(std::uint64_t offset, MutableByteSpan out,
                           const ReadTensor& tensor) const;
  // Whether `file` is such a file, whatever its tensors hold: nobody wrote it anew since.
  bool frames(ByteSpan file) const;

 private:
  struct Piece {
    std::uint64_t begin = 0;  // in the file
    std::uint64_t size = 0;
    Bytes bytes;  // of a piece that is no tensor
    bool is_tensor = false;
    std::size_t layer = 0;
    KvHalf half = KvHalf::kKey;
  };

  StateBundle() = default;
  void lay_out(const BundleSpec& spec);
  void add_bytes(Bytes bytes);
  void add_tensor(std::size_t layer, KvHalf half, std::uint64_t size);

  std::vector<Piece> pieces_;  // ascending, without holes
  std::uint64_t size_ = 0;
};

}  // namespace kvfs::container

// A whole state as one file of which any range can be read without building it: its size is known
// from shapes alone, and tensors are asked for as they are read. Each form holds {"input_ids": i64
// [1, n], "positions": i64 [T] (or a list, one a layer; [heads, T] where heads hold positions of their
// own), "past_key_values": [(K, V), …] of [1, heads, T, width], "state": {text: text}}.
//
// .pt is what torch.load(weights_only=True) reads into that: a zip of stored entries, data
// 64-aligned, as torch.save writes it (torch/csrc, caffe2/serialize/inline_container.cc). A zip
// wants an entry's CRC-32 in the directory and before its data, so before it was read. The entries
// of keys and values have 0 there, as torch itself writes after
// torch.serialization.set_crc32_options(False): torch.load does not check them; unzip and Python's
// zipfile complain of these entries, and of these only.
//
// .pkl is what pickle.load reads into that, with torch at hand: each tensor nests torch's stream
// form of its storage (torch/storage.py, __reduce__).
//
// .npz is what numpy.load reads into arrays input_ids, positions (positions_N), key_N, value_N a
// layer and state, the JSON of the texts as uint8. NumPy knows no bfloat16: such values are float32
// there, which holds them exactly. NumPy does check CRCs: they stand behind the data, and who reads
// the end first waits until all of it was read once.
//
// Any thread; the same spec gives the same bytes, and the size follows from the numbers of tokens
// and positions, whatever they are. Errors: kInvalid for a spec that is none.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "codec/base/bytes.h"
#include "codec/base/dtype.h"
#include "codec/base/result.h"
#include "codec/container/piece_file.h"
#include "codec/container/zip_layout.h"

namespace kvfs::container {

enum class KvHalf { kKey, kValue };
enum class BundleForm { kPt, kPkl, kNpz };

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
  std::vector<std::vector<std::int32_t>>
      positions;  // one for all layers, or one a layer; T or heads · T
  std::map<std::string, std::string> state;
};

class StateBundle {
 public:
  // Fills `out` with the bytes from `offset` on of a layer's keys or values, [heads, T, width]
  // row-major.
  using ReadTensor = std::function<Status(std::size_t layer, KvHalf half, std::uint64_t offset,
                                          MutableByteSpan out)>;

  static Result<StateBundle> make(const BundleSpec& spec, BundleForm form = BundleForm::kPt);
  StateBundle(StateBundle&&) noexcept;
  StateBundle& operator=(StateBundle&&) noexcept;
  ~StateBundle();

  std::uint64_t size() const { return file_.size(); }
  // Bytes from `offset` on; returns how many, fewer than asked for only at the end.
  Result<std::size_t> read(std::uint64_t offset, MutableByteSpan out,
                           const ReadTensor& tensor) const;
  // Whether `file` is such a file, whatever its tensors hold: nobody wrote it anew since.
  bool frames(ByteSpan file) const { return file_.frames(file); }

 private:
  struct Sums;  // of an .npz

  StateBundle();
  void lay_out_pt(const BundleSpec& spec);
  void lay_out_pkl(const BundleSpec& spec);
  void lay_out_npz(const BundleSpec& spec);

  PieceFile file_;  // its ranges: 2 · layer + half, then what Sums says
  std::unique_ptr<Sums> sums_;
};

Bytes as_i64(const std::vector<std::int32_t>& numbers);

}  // namespace kvfs::container

// What an .npz of a state has that depends on its tensors: their CRCs, and so what stands behind
// each and the directory. Summed up as they are read from the first byte on; what was skipped is
// read for it. Part of state_bundle. Any thread.
#pragma once

#include <mutex>
#include <vector>

#include "codec/container/state_bundle.h"

namespace kvfs::container {

struct StateBundle::Sums {
  struct Tensor {
    std::size_t layer = 0;
    KvHalf half = KvHalf::kKey;
    DType source = DType::kF32;  // what is read
    DType written = DType::kF32;
    std::uint64_t size = 0;    // as written
    std::size_t entry = 0;     // of the zip
    std::uint32_t crc = 0;     // guarded by mutex: of the array's header and `summed` bytes
    std::uint64_t summed = 0;  // guarded by mutex
  };

  // A range of the file: tensors, then what stands behind each, then the directory.
  Status read(std::size_t range, std::uint64_t at, MutableByteSpan out, const ReadTensor& tensor);

  std::vector<Tensor> tensors;
  ZipLayout zip;  // crcs of tensors: guarded by mutex
  std::uint64_t directory_at = 0;
  std::mutex mutex;

 private:
  Status read_tensor(Tensor& tensor, std::uint64_t at, MutableByteSpan out, const ReadTensor& read);
  Status finish(Tensor& tensor, const ReadTensor& read);
};

}  // namespace kvfs::container

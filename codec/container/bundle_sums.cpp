#include "codec/container/bundle_sums.h"

#include <algorithm>
#include <boost/json.hpp>
#include <string>
#include <utility>

#include "codec/base/floats.h"
#include "codec/container/npy.h"

namespace kvfs::container {
namespace {

constexpr std::size_t kStep = std::size_t{1} << 20;

Bytes array_of(DType dtype, std::vector<std::uint64_t> shape, ByteSpan data) {
  NpyHeader header{.dtype = dtype, .shape = std::move(shape)};
  Bytes out = make_npy_header(header);
  out.insert(out.end(), data.begin(), data.end());
  return out;
}

std::string json_of(const std::map<std::string, std::string>& texts) {
  boost::json::object object;
  for (const auto& [key, value] : texts) object[key] = value;
  return boost::json::serialize(object);
}

}  // namespace

// Entries: input_ids, positions, keys and values by layer, state.
void StateBundle::lay_out_npz(const BundleSpec& spec) {
  sums_ = std::make_unique<Sums>();
  ZipLayout& zip = sums_->zip;
  const auto add_whole = [&](const std::string& name, Bytes bytes) {
    file_.add(zip.header(name + ".npy", bytes.size(), ZipLayout::crc_of(bytes), file_.size()));
    file_.add(std::move(bytes));
  };
  add_whole("input_ids", array_of(DType::kI64, {1, spec.tokens.size()}, as_i64(spec.tokens)));
  for (std::size_t i = 0; i < spec.positions.size(); ++i) {
    const auto& positions = spec.positions[i];
    const BundleLayer& layer = spec.layers[i];
    const bool own = positions.size() != layer.tokens;
    add_whole(spec.positions.size() == 1 ? "positions" : "positions_" + std::to_string(i),
              array_of(DType::kI64,
                       own ? std::vector{layer.heads, layer.tokens} : std::vector{layer.tokens},
                       as_i64(positions)));
  }
  const DType written = spec.dtype == DType::kBF16 ? DType::kF32 : spec.dtype;
  const std::size_t count = 2 * spec.layers.size();
  for (std::size_t i = 0; i < count; ++i) {
    const BundleLayer& layer = spec.layers[i / 2];
    const bool key = i % 2 == 0;
    const std::uint64_t width = key ? layer.key_width : layer.value_width;
    NpyHeader header{.dtype = written, .shape = {1, layer.heads, layer.tokens, width}};
    const Bytes front = make_npy_header(header);
    const std::uint64_t size = layer.heads * layer.tokens * width * size_of(written);
    const std::string name = (key ? "key_" : "value_") + std::to_string(i / 2) + ".npy";
    sums_->tensors.push_back({.layer = i / 2,
                              .half = key ? KvHalf::kKey : KvHalf::kValue,
                              .source = spec.dtype,
                              .written = written,
                              .size = size,
                              .entry = zip.entries(),
                              .crc = ZipLayout::crc_of(front)});
    file_.add(zip.header(name, front.size() + size, std::nullopt, file_.size()));
    file_.add(front);
    file_.add_range(i, size);
    file_.add_range(count + i, zip.descriptor(zip.entries() - 1).size());
  }
  const std::string state = json_of(spec.state);
  add_whole("state", array_of(DType::kU8, {state.size()}, as_bytes(state)));
  sums_->directory_at = file_.size();
  file_.add_range(2 * count, zip.directory(file_.size()).size());
}

Status StateBundle::Sums::read(std::size_t range, std::uint64_t at, MutableByteSpan out,
                               const ReadTensor& tensor) {
  if (range < tensors.size()) return read_tensor(tensors[range], at, out, tensor);
  Bytes bytes;
  if (range < 2 * tensors.size()) {
    Tensor& behind = tensors[range - tensors.size()];
    KVFS_TRY(finish(behind, tensor));
    const std::lock_guard lock(mutex);
    bytes = zip.descriptor(behind.entry);
  } else {
    for (Tensor& each : tensors) KVFS_TRY(finish(each, tensor));
    const std::lock_guard lock(mutex);
    bytes = zip.directory(directory_at);
  }
  std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), out.size(), out.begin());
  return {};
}

Status StateBundle::Sums::read_tensor(Tensor& tensor, std::uint64_t at, MutableByteSpan out,
                                      const ReadTensor& read) {
  if (tensor.source == tensor.written) {
    KVFS_TRY(read(tensor.layer, tensor.half, at, out));
  } else {  // whole elements, of which a read may want a part
    const std::size_t wide = size_of(tensor.written), slim = size_of(tensor.source);
    const std::uint64_t first = at / wide, end = (at + out.size() + wide - 1) / wide;
    Bytes from((end - first) * slim), to((end - first) * wide);
    KVFS_TRY(read(tensor.layer, tensor.half, first * slim, from));
    convert_floats(tensor.source, from, tensor.written, to);
    std::copy_n(to.begin() + static_cast<std::ptrdiff_t>(at - first * wide), out.size(),
                out.begin());
  }
  const std::lock_guard lock(mutex);
  if (at <= tensor.summed && at + out.size() > tensor.summed) {
    tensor.crc = ZipLayout::crc_of(out.subspan(tensor.summed - at), tensor.crc);
    tensor.summed = at + out.size();
    if (tensor.summed == tensor.size) zip.set_crc(tensor.entry, tensor.crc);
  }
  return {};
}

Status StateBundle::Sums::finish(Tensor& tensor, const ReadTensor& read) {
  Bytes step;
  while (true) {
    std::uint64_t at = 0;
    {
      const std::lock_guard lock(mutex);
      at = tensor.summed;
      if (tensor.size == 0) zip.set_crc(tensor.entry, tensor.crc);
    }
    if (at == tensor.size) return {};
    step.resize(std::min<std::uint64_t>(kStep, tensor.size - at));
    KVFS_TRY(read_tensor(tensor, at, step, read));
  }
}

}  // namespace kvfs::container

#include "codec/container/pickle_writer.h"

#include <functional>
#include <numeric>

namespace kvfs::container {
namespace {

std::string_view storage_of(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "FloatStorage";
    case DType::kF16:
      return "HalfStorage";
    case DType::kBF16:
      return "BFloat16Storage";
    default:
      return "LongStorage";
  }
}

// [T], or [heads, T] where heads hold positions of their own.
BundleTensor positions_tensor(const std::vector<std::int32_t>& positions,
                              const BundleLayer& layer) {
  const bool own = positions.size() != layer.tokens;
  return {.shape = own ? std::vector{layer.heads, layer.tokens} : std::vector{layer.tokens},
          .numbers = &positions};
}

}  // namespace

std::uint64_t BundleTensor::elements() const {
  return std::accumulate(shape.begin(), shape.end(), std::uint64_t{1}, std::multiplies{});
}

PickleWriter::PickleWriter(std::uint8_t protocol) {
  op(kProto);
  out_.number(protocol);
}

void PickleWriter::text(std::string_view value) {
  op(kBinUnicode);
  out_.text(value);
}

void PickleWriter::whole(std::uint64_t value) {
  op(kLong1);
  out_.number(std::uint8_t{8});
  out_.number(value);
}

void PickleWriter::global(std::string_view module, std::string_view name) {
  op(kGlobal);
  for (const std::string_view part :
       {module, std::string_view("\n"), name, std::string_view("\n")}) {
    raw(part);
  }
}

void PickleWriter::storage(DType dtype, std::string_view key, std::uint64_t elements,
                           Within within) {
  op(kMark);
  text("storage");
  global("torch", storage_of(dtype));
  text(key);
  text("cpu");
  whole(elements);
  if (within == Within::kStream) op(kNone);  // no view on another storage
  op(kTuple);
  op(kBinPersId);
}

void PickleWriter::tensor(const std::vector<std::uint64_t>& shape,
                          const std::function<void()>& storage) {
  std::vector<std::uint64_t> strides(shape.size());
  std::uint64_t elements = 1;
  for (std::size_t i = shape.size(); i-- > 0;) {
    strides[i] = elements;
    elements *= shape[i];
  }
  global("torch._utils", "_rebuild_tensor_v2");
  op(kMark);
  storage();
  whole(0);
  wholes(shape);
  wholes(strides);
  op(kNewFalse);
  global("collections", "OrderedDict");
  op(kEmptyTuple);
  op(kReduce);
  op(kTuple);
  op(kReduce);
}

void PickleWriter::wholes(const std::vector<std::uint64_t>& values) {
  op(kMark);
  for (const std::uint64_t value : values) whole(value);
  op(kTuple);
}

Bytes PickleWriter::take() { return out_.take(); }

void put_tree(PickleWriter& out, const BundleSpec& spec,
              const std::function<void(const BundleTensor&)>& tensor) {
  out.op(kEmptyDict);
  out.op(kMark);
  out.text("input_ids");
  tensor({.shape = {1, spec.tokens.size()}, .numbers = &spec.tokens});
  out.text("positions");
  if (spec.positions.size() == 1) {
    tensor(positions_tensor(spec.positions[0], spec.layers[0]));
  } else {
    out.op(kEmptyList);
    out.op(kMark);
    for (std::size_t i = 0; i < spec.positions.size(); ++i) {
      tensor(positions_tensor(spec.positions[i], spec.layers[i]));
    }
    out.op(kAppends);
  }
  out.text("past_key_values");
  out.op(kEmptyList);
  out.op(kMark);
  for (std::size_t i = 0; i < spec.layers.size(); ++i) {
    const BundleLayer& layer = spec.layers[i];
    for (const KvHalf half : {KvHalf::kKey, KvHalf::kValue}) {
      const std::uint64_t width = half == KvHalf::kKey ? layer.key_width : layer.value_width;
      tensor({.dtype = spec.dtype,
              .shape = {1, layer.heads, layer.tokens, width},
              .layer = i,
              .half = half});
    }
    out.op(kTuple2);
  }
  out.op(kAppends);
  out.text("state");
  out.op(kEmptyDict);
  out.op(kMark);
  for (const auto& [key, value] : spec.state) {
    out.text(key);
    out.text(value);
  }
  out.op(kSetItems);
  out.op(kSetItems);
  out.op(kStop);
}

}  // namespace kvfs::container

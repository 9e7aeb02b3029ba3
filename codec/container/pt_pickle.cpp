#include "codec/container/pt_pickle.h"

#include "codec/container/pickle_opcodes.h"

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

// Protocol 2, as torch.save writes it, without a memo.
class PickleWriter {
 public:
  PickleWriter() {
    op(kProto);
    out_.number(std::uint8_t{2});
  }
  void op(PickleOpcode opcode) { out_.number(static_cast<std::uint8_t>(opcode)); }
  void text(std::string_view value) {
    op(kBinUnicode);
    out_.text(value);
  }
  void whole(std::uint64_t value) {
    op(kLong1);
    out_.number(std::uint8_t{8});
    out_.number(value);  // below 2^63
  }
  void global(std::string_view module, std::string_view name) {
    op(kGlobal);
    for (const std::string_view part :
         {module, std::string_view("\n"), name, std::string_view("\n")}) {
      out_.raw(as_bytes(part));
    }
  }
  // Of the next storage, contiguous.
  void tensor(DType dtype, const std::vector<std::uint64_t>& shape) {
    std::vector<std::uint64_t> strides(shape.size());
    std::uint64_t elements = 1;
    for (std::size_t i = shape.size(); i-- > 0;) {
      strides[i] = elements;
      elements *= shape[i];
    }
    global("torch._utils", "_rebuild_tensor_v2");
    op(kMark);
    op(kMark);
    text("storage");
    global("torch", storage_of(dtype));
    text(std::to_string(next_storage_++));
    text("cpu");
    whole(elements);
    op(kTuple);
    op(kBinPersId);
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
  Bytes take() {
    op(kStop);
    return out_.take();
  }

 private:
  void wholes(const std::vector<std::uint64_t>& values) {
    op(kMark);
    for (const std::uint64_t value : values) whole(value);
    op(kTuple);
  }
  ByteWriter out_;
  std::size_t next_storage_ = 0;
};

}  // namespace

Bytes pt_pickle(const BundleSpec& spec) {
  PickleWriter out;
  out.op(kEmptyDict);
  out.op(kMark);
  out.text("input_ids");
  out.tensor(DType::kI64, {1, spec.tokens.size()});
  out.text("positions");
  if (spec.positions.size() == 1) {
    out.tensor(DType::kI64, {spec.positions[0].size()});
  } else {
    out.op(kEmptyList);
    out.op(kMark);
    for (const auto& positions : spec.positions) out.tensor(DType::kI64, {positions.size()});
    out.op(kAppends);
  }
  out.text("past_key_values");
  out.op(kEmptyList);
  out.op(kMark);
  for (const BundleLayer& layer : spec.layers) {
    out.tensor(spec.dtype, {1, layer.heads, layer.tokens, layer.key_width});
    out.tensor(spec.dtype, {1, layer.heads, layer.tokens, layer.value_width});
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
  return out.take();
}

}  // namespace kvfs::container

#include "codec/container/strided.h"

#include <algorithm>
#include <utility>

namespace kvfs::container {
namespace {

constexpr std::size_t kMostDims = 16;

tl::unexpected<Error> refuse(ErrorCode code, std::string why) {
  return fail(code, "tensor", std::move(why), "save tensor.contiguous().clone()");
}

}  // namespace

Result<Strided> Strided::make(std::uint64_t offset, std::vector<std::uint64_t> shape,
                              std::vector<std::uint64_t> strides, std::size_t width,
                              ByteSpan storage) {
  if (shape.size() != strides.size() || shape.size() > kMostDims) {
    return refuse(ErrorCode::kCorrupt, "size and stride do not go together");
  }
  Strided out;
  const std::uint64_t held = storage.size() / width;
  std::uint64_t last = offset;  // the highest element
  bool overflow = false;
  for (std::size_t i = shape.size(); i-- > 0;) {
    if (shape[i] != 1 && strides[i] != out.elements_) out.contiguous_ = false;
    overflow |= __builtin_mul_overflow(out.elements_, shape[i], &out.elements_);
    std::uint64_t reach = 0;
    overflow |= shape[i] != 0 && (__builtin_mul_overflow(shape[i] - 1, strides[i], &reach) ||
                                  __builtin_add_overflow(last, reach, &last));
  }
  if (std::ranges::find(shape, 0U) != shape.end()) {
    out.elements_ = 0;
    out.contiguous_ = true;
    out.offset_ = 0;
  } else {
    if (overflow || last >= held) {
      return refuse(ErrorCode::kCorrupt,
                    "it reaches beyond its storage of " + std::to_string(held) + " elements");
    }
    if (out.elements_ > held) {
      return refuse(ErrorCode::kUnsupported, "expanded: its strides repeat elements");
    }
    out.offset_ = offset;
  }
  out.shape_ = std::move(shape);
  out.strides_ = std::move(strides);
  out.width_ = width;
  out.storage_ = storage;
  return out;
}

Bytes Strided::copy() const {
  Bytes out(size());
  if (out.empty()) return out;
  const std::size_t dims = shape_.size();
  const bool rows = dims != 0 && strides_.back() == 1;  // runs of the last dimension
  const std::uint64_t run = rows ? shape_.back() : 1;
  const std::size_t outer = rows ? dims - 1 : dims;
  std::vector<std::uint64_t> index(outer, 0);
  std::uint64_t from = offset_;
  for (std::uint8_t* to = out.data();; to += run * width_) {
    std::copy_n(storage_.data() + from * width_, run * width_, to);
    std::size_t dim = outer;
    while (dim > 0) {
      --dim;
      from += strides_[dim];
      if (++index[dim] < shape_[dim]) break;
      from -= strides_[dim] * shape_[dim];
      index[dim] = 0;
      if (dim == 0) return out;
    }
    if (outer == 0) return out;
  }
}

}  // namespace kvfs::container

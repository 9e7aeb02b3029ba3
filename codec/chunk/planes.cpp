#include "codec/chunk/planes.h"

#include <algorithm>
#include <vector>

namespace kvfs::chunk {
namespace {

using U8 = std::uint8_t;
using U16 = std::uint16_t;
using U32 = std::uint32_t;

// Elements and the 16-bit plane may lie at any address.
template <class T>
T load(const U8* base, std::size_t index) {
  T value;
  std::memcpy(&value, base + index * sizeof(T), sizeof value);
  return value;
}
template <class T>
void store(U8* base, std::size_t index, T value) {
  std::memcpy(base + index * sizeof(T), &value, sizeof value);
}

// One dtype's bits. A row is `width` elements of one head and position; `at` is its first element.
struct Bf16 {
  using Word = U16;
  static U8 exponent(Word x) { return static_cast<U8>(x >> 7); }
  static void split_row(const U8* __restrict x, const U8* __restrict centre, U8* __restrict symbol,
                        U8* __restrict rest, std::size_t at, std::size_t, std::size_t width) {
    x += at * sizeof(Word);
    symbol += at;
    rest += at;
    for (std::size_t d = 0; d < width; ++d) {
      const Word word = load<Word>(x, d);
      symbol[d] = static_cast<U8>(static_cast<U8>(word >> 7) - centre[d]);
      rest[d] = static_cast<U8>((word >> 8 & 0x80) | (word & 0x7f));
    }
  }
  static void join_row(U8* __restrict x, const U8* __restrict centre, const U8* __restrict symbol,
                       const U8* __restrict rest, std::size_t at, std::size_t, std::size_t width) {
    x += at * sizeof(Word);
    symbol += at;
    rest += at;
    for (std::size_t d = 0; d < width; ++d) {
      const auto exponent = static_cast<U8>(symbol[d] + centre[d]);
      store(x, d, static_cast<Word>((rest[d] & 0x80) << 8 | exponent << 7 | (rest[d] & 0x7f)));
    }
  }
};

struct Fp16 {
  using Word = U16;
  static U8 exponent(Word x) { return static_cast<U8>(x >> 10 & 31); }
  static void split_row(const U8* __restrict x, const U8* __restrict centre, U8* __restrict symbol,
                        U8* __restrict rest, std::size_t at, std::size_t, std::size_t width) {
    x += at * sizeof(Word);
    symbol += at;
    rest += at;
    for (std::size_t d = 0; d < width; ++d) {
      const Word word = load<Word>(x, d);
      const auto high = static_cast<U8>(word >> 8);  // seeeeemm; a carry must not reach the sign
      symbol[d] = static_cast<U8>((high & 0x83) | ((high - (centre[d] << 2)) & 0x7c));
      rest[d] = static_cast<U8>(word);
    }
  }
  static void join_row(U8* __restrict x, const U8* __restrict centre, const U8* __restrict symbol,
                       const U8* __restrict rest, std::size_t at, std::size_t, std::size_t width) {
    x += at * sizeof(Word);
    symbol += at;
    rest += at;
    for (std::size_t d = 0; d < width; ++d) {
      const auto high = (symbol[d] & 0x83) | ((symbol[d] + (centre[d] << 2)) & 0x7c);
      store(x, d, static_cast<Word>(high << 8 | rest[d]));
    }
  }
};

struct Fp32 {
  using Word = U32;
  static U8 exponent(Word x) { return static_cast<U8>(x >> 23); }
  // `count` elements in all: the second rest plane starts behind the first.
  static void split_row(const U8* __restrict x, const U8* __restrict centre, U8* __restrict symbol,
                        U8* __restrict rest, std::size_t at, std::size_t count, std::size_t width) {
    U8* __restrict low = rest + count + at * sizeof(U16);
    x += at * sizeof(Word);
    symbol += at;
    rest += at;
    for (std::size_t d = 0; d < width; ++d) {
      const Word word = load<Word>(x, d);
      symbol[d] = static_cast<U8>(static_cast<U8>(word >> 23) - centre[d]);
      rest[d] = static_cast<U8>((word >> 24 & 0x80) | (word >> 16 & 0x7f));
      store(low, d, static_cast<U16>(word));
    }
  }
  static void join_row(U8* __restrict x, const U8* __restrict centre, const U8* __restrict symbol,
                       const U8* __restrict rest, std::size_t at, std::size_t count,
                       std::size_t width) {
    const U8* __restrict low = rest + count + at * sizeof(U16);
    x += at * sizeof(Word);
    symbol += at;
    rest += at;
    for (std::size_t d = 0; d < width; ++d) {
      const auto exponent = static_cast<U8>(symbol[d] + centre[d]);
      const U32 sign = rest[d] & 0x80U;
      const U32 high = rest[d] & 0x7fU;
      store(x, d, sign << 24 | U32{exponent} << 23 | high << 16 | load<U16>(low, d));
    }
  }
};

// visit.operator()<Layout>() of the shape's dtype.
template <class Visitor>
void with_layout(DType dtype, Visitor&& visit) {
  switch (dtype) {
    case DType::kBF16:
      visit.template operator()<Bf16>();
      break;
    case DType::kF16:
      visit.template operator()<Fp16>();
      break;
    case DType::kF32:
      visit.template operator()<Fp32>();
      break;
    default:
      break;
  }
}

std::size_t element_count(const ShapeClass& shape) {
  return std::size_t{shape.heads} * shape.positions * shape.width;
}

}  // namespace

void mean_exponents(const ShapeClass& shape, ByteSpan elements, MutableByteSpan centres) {
  const std::size_t width = shape.width;
  std::vector<std::uint64_t> sums(width);
  std::vector<U16> partial(width);  // narrow sums vectorise twice as well; 256 rows cannot overflow
  with_layout(shape.dtype, [&]<class Layout> {
    const U8* row = elements.data();
    for (std::size_t head = 0; head < shape.heads; ++head) {
      std::fill(sums.begin(), sums.end(), 0);
      for (std::size_t first = 0; first < shape.positions; first += 256) {
        const std::size_t last = std::min<std::size_t>(first + 256, shape.positions);
        std::fill(partial.begin(), partial.end(), U16{0});
        U16* __restrict sum = partial.data();
        for (std::size_t p = first; p < last; ++p, row += width * sizeof(typename Layout::Word)) {
          for (std::size_t d = 0; d < width; ++d) {
            sum[d] =
                static_cast<U16>(sum[d] + Layout::exponent(load<typename Layout::Word>(row, d)));
          }
        }
        for (std::size_t d = 0; d < width; ++d) sums[d] += partial[d];
      }
      for (std::size_t d = 0; d < width; ++d) {
        centres[head * width + d] =
            static_cast<U8>((sums[d] + shape.positions / 2) / shape.positions);
      }
    }
  });
}

void split_planes(const ShapeClass& shape, ByteSpan elements, ByteSpan centres,
                  MutableByteSpan symbols, MutableByteSpan rest) {
  const std::size_t count = element_count(shape);
  with_layout(shape.dtype, [&]<class Layout> {
    std::size_t at = 0;
    for (std::size_t head = 0; head < shape.heads; ++head) {
      const U8* centre = centres.data() + head * shape.width;
      for (std::size_t p = 0; p < shape.positions; ++p, at += shape.width) {
        Layout::split_row(elements.data(), centre, symbols.data(), rest.data(), at, count,
                          shape.width);
      }
    }
  });
}

void join_planes(const ShapeClass& shape, ByteSpan symbols, ByteSpan rest, ByteSpan centres,
                 MutableByteSpan elements) {
  const std::size_t count = element_count(shape);
  with_layout(shape.dtype, [&]<class Layout> {
    std::size_t at = 0;
    for (std::size_t head = 0; head < shape.heads; ++head) {
      const U8* centre = centres.data() + head * shape.width;
      for (std::size_t p = 0; p < shape.positions; ++p, at += shape.width) {
        Layout::join_row(elements.data(), centre, symbols.data(), rest.data(), at, count,
                         shape.width);
      }
    }
  });
}

}  // namespace kvfs::chunk

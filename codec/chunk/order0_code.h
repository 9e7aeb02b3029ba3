// A look inside a frame that order0_encode wrote: where its Huffman streams begin, and their code.
// For who decodes them elsewhere (a GPU); order0_decode is the way on this machine. Any thread.
//
// The layouts are RFC 8878's: frames 3.1.1, literals 3.1.1.3.1, Huffman trees 4.2, FSE 4.1.
#pragma once

#include <array>
#include <optional>

#include "codec/base/bytes.h"

namespace kvfs::chunk {

struct Order0Code {
  static constexpr int kMostBits = 11;  // of a symbol's code
  static constexpr std::size_t kStreams = 4;

  // A symbol of weight w > 0 has a code of table_bits + 1 − w bits and 2^(w − 1) places in a table
  // of 2^table_bits, which all of them together fill exactly: by ascending weight, then symbol.
  std::array<std::uint8_t, 256> weights{};
  int table_bits = 0;  // 1 … kMostBits
  // Each is read from its last byte's highest set bit downwards, and ends at its first bit. The
  // first three hold (size + 3) / 4 symbols, the last one the rest. None is empty, no last byte 0.
  std::array<ByteSpan, kStreams> streams;
};

// Nothing for any other frame than one compressed block of four streams that says it holds `size`
// bytes and no matches: there order0_decode has the last word. Every span lies inside of the frame.
std::optional<Order0Code> order0_code(ByteSpan frame, std::size_t size);

}  // namespace kvfs::chunk

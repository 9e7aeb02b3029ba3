#include "codec/chunk/order0_code.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <span>

namespace kvfs::chunk {
namespace {

constexpr std::uint32_t kMagic = 0xfd2fb528;
constexpr unsigned kMostAccuracy = 6;  // log of the states of weights' FSE code
constexpr std::size_t kMostWeight = Order0Code::kMostBits;

int highest_bit(std::uint32_t value) { return std::bit_width(value) - 1; }

// The bytes of the frame's only block.
std::optional<ByteSpan> only_block(ByteSpan frame, std::size_t size) {
  ByteReader reader(frame);
  if (reader.number<std::uint32_t>() != kMagic) return std::nullopt;
  const auto flags = reader.number<std::uint8_t>();
  const bool one_segment = (flags & 0x20) != 0;
  if ((flags & 0x1f) != 0) return std::nullopt;           // a dictionary, a checksum, reserved
  if (!one_segment) (void)reader.number<std::uint8_t>();  // the window
  std::uint64_t content = size;
  switch (flags >> 6) {
    case 0:
      if (one_segment) content = reader.number<std::uint8_t>();
      break;
    case 1:
      content = reader.number<std::uint16_t>() + 256U;
      break;
    case 2:
      content = reader.number<std::uint32_t>();
      break;
    default:
      content = reader.number<std::uint64_t>();
  }
  const std::uint32_t low = reader.number<std::uint16_t>();
  const std::uint32_t header = low | std::uint32_t{reader.number<std::uint8_t>()} << 16;
  constexpr std::uint32_t kLast = 1, kCompressed = 2;
  if (content != size || (header & 1) != kLast || (header >> 1 & 3) != kCompressed) {
    return std::nullopt;
  }
  const ByteSpan block = reader.raw(header >> 3);
  if (!reader.ok() || !reader.at_end()) return std::nullopt;
  return block;
}

// Two bytes at a place, of which there may be one or none: zeros.
std::uint32_t two_bytes(ByteSpan bytes, std::size_t at) {
  std::uint32_t value = at < bytes.size() ? bytes[at] : 0U;
  if (at + 1 < bytes.size()) value |= std::uint32_t{bytes[at + 1]} << 8;
  return value;
}

// Bits from a byte's lowest upwards, up to eight at once; zeros behind the end.
class Forward {
 public:
  explicit Forward(ByteSpan bytes) : bytes_(bytes) {}
  std::uint32_t peek(unsigned count) const {
    return two_bytes(bytes_, at_ / 8) >> at_ % 8 & ((1U << count) - 1);
  }
  std::uint32_t take(unsigned count) {
    const std::uint32_t value = peek(count);
    at_ += count;
    return value;
  }
  void skip(unsigned count) { at_ += count; }
  std::size_t bytes_used() const { return (at_ + 7) / 8; }

 private:
  ByteSpan bytes_;
  std::size_t at_ = 0;
};

// Bits from the highest set one of the last byte downwards, up to eight at once; zeros below the
// first.
class Backward {
 public:
  explicit Backward(ByteSpan bytes) : bytes_(bytes) {
    left_ = static_cast<std::ptrdiff_t>(8 * (bytes.size() - 1)) + highest_bit(bytes.back());
  }
  std::uint32_t take(unsigned count) {
    left_ -= static_cast<std::ptrdiff_t>(count);
    const auto below = static_cast<unsigned>(std::clamp<std::ptrdiff_t>(-left_, 0, count));
    const auto at = static_cast<std::size_t>(std::max<std::ptrdiff_t>(left_, 0));
    return (two_bytes(bytes_, at / 8) >> at % 8 & ((1U << (count - below)) - 1)) << below;
  }
  bool ran_out() const { return left_ < 0; }

 private:
  ByteSpan bytes_;
  std::ptrdiff_t left_;
};

struct State {
  std::uint8_t symbol;
  std::uint8_t bits;
  std::uint16_t base;
};

struct States {
  unsigned accuracy = 0;  // there are 2^accuracy
  std::array<State, 1 << kMostAccuracy> at{};
};

// 4.1.1: the symbols' shares of 2^accuracy states, then the states.
std::optional<States> read_states(Forward& in) {
  States out{.accuracy = in.take(4) + 5};
  if (out.accuracy > kMostAccuracy) return std::nullopt;
  const int size = 1 << out.accuracy;
  std::array<int, kMostWeight + 1> shares{};
  std::size_t symbols = 0;
  for (int left = size; left > 0;) {
    if (symbols == shares.size()) return std::nullopt;
    const auto bits = static_cast<unsigned>(highest_bit(static_cast<std::uint32_t>(left + 1)) + 1);
    const int low = static_cast<int>(in.peek(bits - 1));
    const int spare = (1 << bits) - 1 - (left + 1);  // so many values take one bit less
    int value = low;
    if (low < spare) {
      in.skip(bits - 1);
    } else {
      value = static_cast<int>(in.take(bits));
      if (value >= 1 << (bits - 1)) value -= spare;
    }
    shares[symbols++] = value - 1;
    left -= std::abs(value - 1);
    if (left < 0) return std::nullopt;
    for (unsigned none = value == 1 ? 3 : 0; none == 3;) {
      none = in.take(2);
      if (symbols + none > shares.size()) return std::nullopt;
      symbols += none;
    }
  }
  const std::span<State> states = std::span(out.at).first(static_cast<std::size_t>(size));
  std::array<std::uint32_t, kMostWeight + 1> next{};
  std::size_t high = states.size();  // symbols of less than one share, from the end
  for (std::size_t s = 0; s < symbols; ++s) {
    next[s] = static_cast<std::uint32_t>(std::abs(shares[s]));
    if (shares[s] < 0) states[--high].symbol = static_cast<std::uint8_t>(s);
  }
  const std::size_t step = states.size() / 2 + states.size() / 8 + 3;
  std::size_t at = 0;
  for (std::size_t s = 0; s < symbols; ++s) {
    for (int i = 0; i < shares[s]; ++i) {
      states[at].symbol = static_cast<std::uint8_t>(s);
      do {
        at = (at + step) % states.size();
      } while (at >= high);
    }
  }
  for (State& state : states) {
    const std::uint32_t number = next[state.symbol]++;
    state.bits = static_cast<std::uint8_t>(static_cast<int>(out.accuracy) - highest_bit(number));
    state.base = static_cast<std::uint16_t>((number << state.bits) - states.size());
  }
  return out;
}

using Weights = std::array<std::uint8_t, 255>;  // all but the last

// 4.2.1.2: two states take turns. Returns how many there are.
std::optional<std::size_t> coded_weights(ByteSpan bytes, Weights& weights) {
  Forward head(bytes);
  const auto states = read_states(head);
  if (!states || head.bytes_used() >= bytes.size() || bytes.back() == 0) return std::nullopt;
  Backward in(bytes.subspan(head.bytes_used()));
  std::array<std::uint32_t, 2> state{};
  for (auto& each : state) each = in.take(states->accuracy);
  for (std::size_t count = 0, turn = 0; count + 1 < weights.size(); turn ^= 1) {
    const State& now = states->at[state[turn]];
    weights[count++] = now.symbol;
    state[turn] = now.base + in.take(now.bits);
    if (in.ran_out()) {
      weights[count++] = states->at[state[turn ^ 1]].symbol;
      return count;
    }
  }
  return std::nullopt;
}

// 4.2.1.1: four bits each.
std::optional<std::size_t> plain_weights(ByteSpan bytes, std::size_t count, Weights& weights) {
  if ((count + 1) / 2 > bytes.size()) return std::nullopt;
  for (std::size_t i = 0; i < count; ++i) {
    weights[i] = static_cast<std::uint8_t>(i % 2 == 0 ? bytes[i / 2] >> 4 : bytes[i / 2] & 15);
  }
  return count;
}

// 4.2.1: all weights but the last, which fills the table. Returns the bytes they take.
std::optional<std::size_t> read_weights(ByteSpan bytes, Order0Code& code) {
  if (bytes.empty()) return std::nullopt;
  const std::size_t head = bytes[0];
  const bool plain = head >= 128;
  const std::size_t size = plain ? (head - 127 + 1) / 2 : head;
  if (size == 0 || size >= bytes.size()) return std::nullopt;
  Weights weights{};
  const auto count = plain ? plain_weights(bytes.subspan(1, size), head - 127, weights)
                           : coded_weights(bytes.subspan(1, size), weights);
  if (!count) return std::nullopt;
  std::uint32_t places = 0;
  for (std::size_t i = 0; i < *count; ++i) {
    if (weights[i] > kMostWeight) return std::nullopt;
    code.weights[i] = weights[i];
    places += weights[i] > 0 ? 1U << (weights[i] - 1) : 0U;
  }
  if (places == 0) return std::nullopt;
  code.table_bits = highest_bit(places) + 1;
  const std::uint32_t left = (1U << code.table_bits) - places;
  if (code.table_bits > Order0Code::kMostBits || !std::has_single_bit(left)) return std::nullopt;
  code.weights[*count] = static_cast<std::uint8_t>(highest_bit(left) + 1);
  if (std::ranges::count(code.weights, 1) % 2 != 0) return std::nullopt;  // no tree has that
  return 1 + size;
}

}  // namespace

std::optional<Order0Code> order0_code(ByteSpan frame, std::size_t size) {
  const auto block = only_block(frame, size);
  if (!block || block->size() < 6) return std::nullopt;
  // 3.1.1.3.1.1: type and form, then both sizes.
  std::uint64_t header = 0;
  for (std::size_t i = 0; i < 5; ++i) header |= std::uint64_t{(*block)[i]} << 8 * i;
  constexpr std::uint64_t kCompressed = 2;
  const std::uint64_t form = header >> 2 & 3;
  if ((header & 3) != kCompressed || form == 0) return std::nullopt;  // 0: one stream
  const unsigned width = form == 1 ? 10 : form == 2 ? 14 : 18;
  const std::uint64_t mask = (1U << width) - 1;
  if ((header >> 4 & mask) != size) return std::nullopt;
  const std::size_t held = header >> (4 + width) & mask;
  const std::size_t at = (4 + 2 * width + 7) / 8;
  // Behind the literals: no sequences.
  if (at + held + 1 != block->size() || block->back() != 0) return std::nullopt;
  const ByteSpan literals = block->subspan(at, held);

  Order0Code code;
  const auto used = read_weights(literals, code);
  if (!used || literals.size() < *used + 6) return std::nullopt;
  ByteReader sizes(literals.subspan(*used, 6));
  ByteSpan rest = literals.subspan(*used + 6);
  for (std::size_t i = 0; i < Order0Code::kStreams; ++i) {
    const std::size_t length =
        i + 1 < Order0Code::kStreams ? sizes.number<std::uint16_t>() : rest.size();
    if (length == 0 || length > rest.size() || rest[length - 1] == 0) return std::nullopt;
    code.streams[i] = rest.first(length);
    rest = rest.subspan(length);
  }
  return code;
}

}  // namespace kvfs::chunk

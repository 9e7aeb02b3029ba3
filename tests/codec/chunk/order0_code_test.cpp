// What order0_code says of a frame, against zstd's own decoder.
#include "codec/chunk/order0_code.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <random>

#include "codec/chunk/order0.h"

namespace kvfs::chunk {
namespace {

Bytes frame_of(const Bytes& symbols) {
  Bytes frame(order0_bound(symbols.size()));
  frame.resize(order0_encode(symbols, frame).value_or(0));
  return frame;
}

// Decodes as a device does: by the table that the weights fill.
Bytes decoded(const Order0Code& code, std::size_t size) {
  std::vector<std::pair<std::uint8_t, int>> table;  // symbol, bits
  for (int weight = 1; weight <= code.table_bits; ++weight) {
    for (std::size_t s = 0; s < code.weights.size(); ++s) {
      if (code.weights[s] != weight) continue;
      table.insert(table.end(), std::size_t{1} << (weight - 1),
                   {static_cast<std::uint8_t>(s), code.table_bits + 1 - weight});
    }
  }
  EXPECT_EQ(table.size(), std::size_t{1} << code.table_bits);
  Bytes out;
  for (std::size_t i = 0; i < code.streams.size(); ++i) {
    const ByteSpan stream = code.streams[i];
    int left = 8 * static_cast<int>(stream.size() - 1) + std::bit_width(stream.back()) - 1;
    const auto bit = [&](int at) {
      const auto place = static_cast<std::size_t>(at);
      return at >= 0 ? stream[place / 8] >> place % 8 & 1U : 0U;
    };
    const std::size_t end = i == 3 ? size : (i + 1) * ((size + 3) / 4);
    while (out.size() < end) {
      std::size_t index = 0;
      for (int b = 1; b <= code.table_bits; ++b) index = index << 1 | bit(left - b);
      out.push_back(table[index].first);
      left -= table[index].second;
    }
    EXPECT_EQ(left, 0) << "stream " << i;
  }
  return out;
}

// Symbols of KV's kind: about a mean, the more of them the wider.
Bytes around(std::size_t size, double width, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> draw(0, width);
  Bytes out(size);
  for (auto& each : out) each = static_cast<std::uint8_t>(std::lround(draw(random)));
  return out;
}

TEST(Order0Code, GivesWhatZstdDecodes) {
  for (const double width : {0.4, 1.5, 3.0, 12.0, 30.0}) {
    for (const std::size_t size : {4096U, 12321U, 65536U, 131072U}) {
      const Bytes symbols = around(size, width, static_cast<unsigned>(size));
      const Bytes frame = frame_of(symbols);
      const auto code = order0_code(frame, size);
      ASSERT_TRUE(code) << size << " of width " << width;
      EXPECT_EQ(decoded(*code, size), symbols) << size << " of width " << width;
    }
  }
}

TEST(Order0Code, KnowsBothKindsOfTrees) {
  // Few symbols: their weights as they are; many of unlike frequency: coded themselves.
  std::mt19937 random(3);
  Bytes two(8192), many(65536);
  for (auto& each : two) each = random() % 8 == 0;
  for (auto& each : many) each = static_cast<std::uint8_t>(random() % (1 + random() % 256));
  for (const Bytes& symbols : {two, many}) {
    const Bytes frame = frame_of(symbols);
    const auto code = order0_code(frame, symbols.size());
    ASSERT_TRUE(code);
    EXPECT_EQ(decoded(*code, symbols.size()), symbols);
  }
}

TEST(Order0Code, WhatIsMadeOtherwiseIsLeftToZstd) {
  std::mt19937 random(4);
  Bytes noise(65536);
  for (auto& each : noise) each = static_cast<std::uint8_t>(random());
  const Bytes good = around(65536, 1.5, 1);
  EXPECT_FALSE(order0_code(frame_of(noise), noise.size())) << "raw literals";
  EXPECT_FALSE(order0_code(frame_of(Bytes(65536, 7)), 65536)) << "one symbol";
  EXPECT_FALSE(order0_code(frame_of(around(100, 1, 2)), 100)) << "one stream";
  EXPECT_FALSE(order0_code(frame_of(around(200000, 1.5, 2)), 200000)) << "two blocks";
  EXPECT_FALSE(order0_code(frame_of(good), good.size() + 1)) << "another size";
  EXPECT_FALSE(order0_code({}, 0));
}

// Whatever it says of damage lies inside of the frame and is a code.
TEST(Order0Code, DamageIsRefusedOrStillACode) {
  const std::size_t size = 4096;
  const Bytes good = frame_of(around(size, 2.0, 9));
  for (std::size_t cut = 0; cut < good.size(); ++cut) {
    EXPECT_FALSE(order0_code(ByteSpan(good).first(cut), size)) << cut;
  }
  std::mt19937 random(10);
  int codes = 0;
  for (std::size_t at = 0; at < std::min<std::size_t>(good.size(), 160); ++at) {
    for (int i = 0; i < 40; ++i) {
      Bytes bad = good;
      bad[at] = static_cast<std::uint8_t>(random());
      const auto code = order0_code(bad, size);
      if (!code) continue;
      ++codes;
      std::size_t places = 0;
      for (const std::uint8_t weight : code->weights) places += weight > 0 ? 1U << (weight - 1) : 0;
      EXPECT_EQ(places, std::size_t{1} << code->table_bits);
      EXPECT_LE(code->table_bits, Order0Code::kMostBits);
      const std::uint8_t* end = bad.data();
      for (const ByteSpan stream : code->streams) {
        EXPECT_GE(stream.data(), end);
        end = stream.data() + stream.size();
        ASSERT_FALSE(stream.empty());
        EXPECT_NE(stream.back(), 0);
      }
      EXPECT_LE(end, bad.data() + bad.size());
    }
  }
  EXPECT_GT(codes, 0);
}

}  // namespace
}  // namespace kvfs::chunk

// Chunks that the device decodes against those that the host does, bit by bit; damaged ones.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "codec/chunk/zh.h"
#include "engine/model/cuda/transfers.h"
#include "tests/codec/chunk/sample.h"
#include "tests/engine/model/cuda/device_array.h"

namespace kvfs::model::cuda {
namespace {

using chunk::CodecId;
using chunk::ShapeClass;

struct Sample {
  ShapeClass shape;
  Bytes bytes;
  CodecId codec;
};

// Exponents of every kind: all bits random, but few of the exponent's, so that zh takes it.
Bytes wild(const ShapeClass& shape, unsigned seed) {
  std::mt19937 random(seed);
  Bytes out;
  for (std::size_t i = 0; i < shape.byte_size() / 2; ++i) {
    static constexpr std::uint16_t kExponents[] = {0, 0, 0, 0, 1, 127, 128, 254, 255, 255};
    const std::uint16_t exponent = kExponents[random() % 10];
    const auto word = static_cast<std::uint16_t>((random() & 0x807f) | exponent << 7);
    out.push_back(static_cast<std::uint8_t>(word));
    out.push_back(static_cast<std::uint8_t>(word >> 8));
  }
  return out;
}

class CudaUnpack : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_gpu()) GTEST_SKIP() << "no NVIDIA GPU here";
    const auto ticket = transfers_.open(nullptr);
    ASSERT_TRUE(ticket) << ticket.error().message();
    ticket_ = *ticket;
  }
  // Bytes of heads that lie `gap` bytes apart; between them nothing may change.
  static constexpr std::ptrdiff_t kGap = 48;
  static std::size_t pitch(const ShapeClass& shape) {
    return shape.byte_size() / shape.heads + std::size_t{kGap};
  }
  static void expect_there(const DeviceArray<std::uint8_t>& place, const Sample& sample) {
    const std::size_t head = sample.shape.byte_size() / sample.shape.heads;
    const std::vector<std::uint8_t> out = place.host();
    for (std::size_t h = 0; h < sample.shape.heads; ++h) {
      const auto at = out.begin() + static_cast<std::ptrdiff_t>(h * pitch(sample.shape));
      const auto end = at + static_cast<std::ptrdiff_t>(head);
      ASSERT_TRUE(std::equal(at, end, sample.bytes.begin() + static_cast<std::ptrdiff_t>(h * head)))
          << sample.shape.heads << " × " << sample.shape.positions << " × " << sample.shape.width
          << ", head " << h;
      ASSERT_EQ(std::count(end, end + kGap, 0xff), kGap) << "behind head " << h;
    }
  }
  Status in(const Sample& sample, ByteSpan encoded, const DeviceArray<std::uint8_t>& place) {
    return transfers_.in({sample.codec, sample.shape, encoded,
                          reinterpret_cast<std::byte*>(place.get()), pitch(sample.shape)});
  }

  Transfers transfers_{0};
  Transfers::Ticket ticket_ = 0;
};

TEST_F(CudaUnpack, EveryChunkIsWhatTheHostDecodes) {
  std::vector<Sample> samples;
  for (const ShapeClass shape :
       {ShapeClass{DType::kBF16, 2, 256, 128}, ShapeClass{DType::kBF16, 3, 256, 64},
        ShapeClass{DType::kBF16, 4, 37, 64}, ShapeClass{DType::kBF16, 1, 9, 128},
        ShapeClass{DType::kBF16, 1, 256, 512}, ShapeClass{DType::kBF16, 5, 3, 8},
        ShapeClass{DType::kBF16, 8, 256, 128}}) {
    for (const CodecId codec : {CodecId::kZh, CodecId::kRaw}) {
      samples.push_back({shape, chunk::gaussian(shape), codec});
      samples.push_back({shape, chunk::noise(shape), codec});
      samples.push_back({shape, Bytes(shape.byte_size()), codec});
      samples.push_back({shape, wild(shape, 1), codec});
    }
  }
  const ShapeClass single{DType::kF32, 2, 256, 64};  // the host decodes these
  samples.push_back({single, chunk::gaussian(single), CodecId::kZh});
  std::vector<std::unique_ptr<DeviceArray<std::uint8_t>>> places;
  for (const Sample& sample : samples) {
    places.push_back(
        std::make_unique<DeviceArray<std::uint8_t>>(sample.shape.heads * pitch(sample.shape)));
  }
  ASSERT_TRUE(transfers_.open(nullptr));  // the places are made
  int coded = 0;
  for (std::size_t i = 0; i < samples.size(); ++i) {
    Sample& sample = samples[i];
    const chunk::Encoded encoded = chunk::encode(sample.codec, sample.shape, sample.bytes);
    coded += encoded.codec == CodecId::kZh ? 1 : 0;
    sample.codec = encoded.codec;
    const Status done = in(sample, encoded.bytes, *places[i]);
    ASSERT_TRUE(done) << done.error().message();
  }
  EXPECT_GT(coded, 15);
  const Status there = transfers_.wait(ticket_);
  ASSERT_TRUE(there) << there.error().message();
  for (std::size_t i = 0; i < samples.size(); ++i) expect_there(*places[i], samples[i]);
}

TEST_F(CudaUnpack, ManyThreadsBringMoreThanTheRingHolds) {
  const ShapeClass shape{DType::kBF16, 2, 256, 128};
  const Sample sample{shape, chunk::gaussian(shape), CodecId::kZh};
  const Bytes encoded = chunk::encode(CodecId::kZh, shape, sample.bytes).bytes;
  std::vector<std::unique_ptr<DeviceArray<std::uint8_t>>> places;
  for (int i = 0; i < 1200; ++i) {
    places.push_back(std::make_unique<DeviceArray<std::uint8_t>>(2 * pitch(shape)));
  }
  ASSERT_TRUE(transfers_.open(nullptr));  // the places are made
  std::atomic<std::size_t> next = 0;
  std::atomic<int> failed = 0;
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 6; ++t) {
      threads.emplace_back([&] {
        for (std::size_t mine = next++; mine < places.size(); mine = next++) {
          if (!in(sample, encoded, *places[mine])) ++failed;
        }
      });
    }
  }
  EXPECT_EQ(failed, 0);
  ASSERT_TRUE(transfers_.wait(ticket_));
  for (const auto& place : places) expect_there(*place, sample);
}

// The device finds what the host does not look at, and writes nowhere else.
TEST_F(CudaUnpack, DamagedCodesAreRefusedAndChangeNothingElse) {
  const ShapeClass shape{DType::kBF16, 2, 64, 64};
  const Sample sample{shape, chunk::gaussian(shape), CodecId::kZh};
  const Bytes good = *chunk::zh_encode(shape, sample.bytes);
  const std::size_t size = pitch(shape);
  std::mt19937 random(6);
  const auto frame_at = good.size() - chunk::zh_parts(shape, good)->frame.size();
  int refused_there = 0;
  for (int i = 0; i < 400; ++i) {
    Bytes bad = good;
    const std::size_t at =
        i % 4 == 0 ? random() % bad.size() : frame_at + random() % (bad.size() - frame_at);
    bad[at] = static_cast<std::uint8_t>(bad[at] ^ (1 + random() % 255));
    Bytes host(shape.byte_size());
    const bool sound = chunk::zh_decode(shape, bad, host).has_value();
    const DeviceArray<std::uint8_t> place(shape.heads * size);
    const auto ticket = transfers_.open(nullptr);
    ASSERT_TRUE(ticket);
    const Status brought = in(sample, bad, place);
    const Status there = transfers_.wait(*ticket);
    if (brought && !there) {
      ++refused_there;
      EXPECT_EQ(there.error().code, ErrorCode::kCorrupt);
    }
    if (brought && there) {
      EXPECT_TRUE(sound) << "byte " << at;
      expect_there(place, {shape, host, CodecId::kZh});
    } else {
      const auto out = place.host();
      for (std::size_t h = 1; h <= shape.heads; ++h) {
        const auto end = out.begin() + static_cast<std::ptrdiff_t>(h * size);
        ASSERT_EQ(std::count(end - kGap, end, 0xff), kGap) << "byte " << at;
      }
    }
  }
  EXPECT_GT(refused_there, 50);
  EXPECT_FALSE(transfers_.wait(ticket_)) << "whoever waited meanwhile is told";
  const auto after = transfers_.open(nullptr);
  ASSERT_TRUE(after);
  EXPECT_TRUE(transfers_.wait(*after)) << "who comes later is not";
}

}  // namespace
}  // namespace kvfs::model::cuda

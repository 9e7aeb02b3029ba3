// What tests of kernels share: random numbers, a yardstick, pages. float, bf16 and fp16.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/model/cuda/kernels.h"
#include "tests/engine/model/cuda/device_array.h"

namespace kvfs::model::cuda {

inline float number(float value) { return value; }
inline float number(__nv_bfloat16 value) { return __bfloat162float(value); }
inline float number(__half value) { return __half2float(value); }

template <class T>
T rounded(float value) {
  if constexpr (std::is_same_v<T, float>)
    return value;
  else if constexpr (std::is_same_v<T, __half>)
    return __float2half(value);
  else
    return __float2bfloat16(value);
}

inline constexpr int kPage = 256;

template <class T>
class CudaKernels : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_gpu()) GTEST_SKIP() << "no NVIDIA GPU here";
    seed_ = std::random_device{}();
    random_.seed(seed_);
  }

  template <class E = T>
  std::vector<E> normal(std::size_t count, float scale = 1.0F) {
    std::normal_distribution<float> draw(0.0F, scale);
    std::vector<E> out(count);
    for (E& each : out) each = rounded<E>(draw(random_));
    return out;
  }
  int between(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }

  // ‖out − expected‖ / ‖expected‖; NaN never passes.
  template <class E>
  void expect_close(const std::vector<E>& out, const std::vector<double>& expected,
                    double most = std::is_same_v<E, float>    ? 5e-6
                                  : std::is_same_v<E, __half> ? 4e-4
                                                              : 3e-3) {
    ASSERT_EQ(out.size(), expected.size());
    double off = 0.0;
    double norm = 0.0;
    for (std::size_t i = 0; i < out.size(); ++i) {
      const double difference = static_cast<double>(number(out[i])) - expected[i];
      off += difference * difference;
      norm += expected[i] * expected[i];
    }
    ASSERT_GT(norm, 0.0);
    const double error = std::sqrt(off / norm);
    EXPECT_TRUE(error < most) << "relative error " << error << ", seed " << seed_;
  }

  unsigned seed_ = 0;  // fresh each time
  std::mt19937 random_;
};

using KvTypes = testing::Types<float, __nv_bfloat16>;
using KernelTypes = testing::Types<float, __nv_bfloat16, __half>;
class KernelTypeNames {
 public:
  template <class T>
  static std::string GetName(int) {
    return std::is_same_v<T, float> ? "float" : std::is_same_v<T, __half> ? "fp16" : "bf16";
  }
};

// A few sequences' pages of one layer, [key, value][kv_heads][256][width], in a shuffled order.
template <class T>
struct Pages {
  Pages(HeadShape shape_in, std::vector<std::vector<T>> contents, std::mt19937& random)
      : shape(shape_in), memory(contents.size() * page_elements()) {
    std::vector<std::size_t> slots(contents.size());
    for (std::size_t i = 0; i < slots.size(); ++i) slots[i] = i;
    std::shuffle(slots.begin(), slots.end(), random);
    std::vector<void*> addresses;
    for (std::size_t i = 0; i < slots.size(); ++i) {
      T* at = memory.get() + slots[i] * page_elements();
      addresses.push_back(at);
      must(cudaMemcpy(at, contents[i].data(), page_elements() * sizeof(T), cudaMemcpyHostToDevice));
    }
    table = std::make_unique<DeviceArray<void*>>(addresses);
    host_table = addresses;
  }
  std::size_t page_elements() const { return 2 * side(); }
  std::size_t side() const {
    return static_cast<std::size_t>(shape.kv_heads * kPage * shape.width);
  }
  KvPlace place() const { return {table->get(), 0, static_cast<std::int64_t>(side())}; }
  std::vector<T> page(std::size_t index) const {
    std::vector<T> out(page_elements());
    must(cudaDeviceSynchronize());
    must(cudaMemcpy(out.data(), host_table[index], out.size() * sizeof(T), cudaMemcpyDeviceToHost));
    return out;
  }

  HeadShape shape;
  DeviceArray<T> memory;
  std::unique_ptr<DeviceArray<void*>> table;
  std::vector<void*> host_table;
};

}  // namespace kvfs::model::cuda

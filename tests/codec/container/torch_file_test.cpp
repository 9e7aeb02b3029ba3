#include "codec/container/torch_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/codec/container/cache_files.h"
#include "tests/codec/container/largest_allocation.h"

namespace kvfs::container {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// The tensors of a tuple of pairs.
Result<std::vector<TensorView>> tensors_of(TorchFile& file) {
  std::vector<TensorView> out;
  for (const NodeId pair : file.tree().top().items) {
    for (const NodeId tensor : file.tree()[pair].items) {
      KVFS_ASSIGN(auto view, file.tensor(tensor));
      out.push_back(std::move(view));
    }
  }
  return out;
}

class TorchFiles : public testing::TestWithParam<std::string> {};

TEST_P(TorchFiles, GiveTheTensorsThatTorchWrote) {
  const Bytes bytes = cache_file(GetParam());
  const auto file = TorchFile::open(bytes);
  ASSERT_TRUE(file) << file.error().message();
  const auto tensors = tensors_of(**file);
  ASSERT_TRUE(tensors) << tensors.error().message();
  ASSERT_EQ(tensors->size(), 4U);
  for (std::size_t i = 0; i < tensors->size(); ++i) {
    EXPECT_THAT((*tensors)[i].shape, ElementsAre(1, 2, 3, 4));
    EXPECT_EQ(floats_of((*tensors)[i]), counting(24 * i, 24));
  }
}

std::string name_of_file(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  for (char& c : name) c = c == '.' ? '_' : c;
  return name;
}
INSTANTIATE_TEST_SUITE_P(Made, TorchFiles,
                         testing::Values("tuple_fp32.pt", "tuple_fp16.pt", "tuple_bf16.pt",
                                         "tuple_stream.pt", "tuple_0.pkl", "tuple_1.pkl",
                                         "tuple_2.pkl", "tuple_3.pkl", "tuple_4.pkl", "tuple_5.pkl",
                                         "shared.pt", "shared_stream.pt", "strided.pt",
                                         "no_crc.pt"),
                         name_of_file);

TEST(TorchFile, ContiguousTensorsAreViewsIntoTheFile) {
  for (const char* name : {"tuple_fp32.pt", "tuple_stream.pt", "tuple_5.pkl", "shared.pt"}) {
    const Bytes bytes = cache_file(name);
    const auto file = TorchFile::open(bytes);
    ASSERT_TRUE(file) << file.error().message();
    const auto tensors = tensors_of(**file);
    ASSERT_TRUE(tensors) << tensors.error().message();
    for (const TensorView& tensor : *tensors) {
      EXPECT_GE(tensor.bytes.data(), bytes.data()) << name;
      EXPECT_LE(tensor.bytes.data() + tensor.bytes.size(), bytes.data() + bytes.size()) << name;
    }
  }
}

TEST(TorchFile, AFileCutAtAnyByteGivesNoTensors) {
  for (const char* name : {"tuple_bf16.pt", "tuple_stream.pt", "tuple_2.pkl"}) {
    const Bytes whole = cache_file(name);
    for (std::size_t size = 0; size < whole.size(); ++size) {
      reset_largest_allocation();
      const auto file = TorchFile::open(ByteSpan(whole).first(size));
      if (file) {
        EXPECT_FALSE(tensors_of(**file)) << name << ", " << size;
      }
      EXPECT_LT(largest_allocation(), 256U << 10);
    }
  }
}

TEST(TorchFile, ElementTypesThatNoCacheHasAreRefusedByName) {
  const Bytes bytes = cache_file("double.pt");
  const auto file = TorchFile::open(bytes);
  ASSERT_TRUE(file) << file.error().message();
  const auto tensors = tensors_of(**file);
  ASSERT_FALSE(tensors);
  EXPECT_EQ(tensors.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(tensors.error().message(), HasSubstr("torch.DoubleStorage"));
}

TEST(TorchFile, AFileThatWouldExecuteIsRefusedByNameOfOpcodeAndCall) {
  const Bytes bytes = cache_file("evil.pt");
  const auto file = TorchFile::open(bytes);
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().code, ErrorCode::kInvalid);
  EXPECT_THAT(file.error().message(), HasSubstr("opcode REDUCE calls posix.system"));
}

// A tensor over a storage of twelve floats.
std::string tensor_over_twelve(const std::string& offset, const std::string& size,
                               const std::string& stride) {
  return "ctorch._utils\n_rebuild_tensor_v2\n((S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\n"
         "I12\ntQI" +
         offset + "\n(" + size + "t(" + stride + "tI00\nNtR.";
}

// The older form: magic number, version, system, tree, keys, one storage of twelve floats.
std::string stream_of(const std::string& tree) {
  using namespace std::string_literals;
  return "\x80\x02\x8a\nl\xfc\x9c\x46\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
         "}S'little_endian'\nI01\ns."s +
         tree + "(S'0'\nl.\x0c\0\0\0\0\0\0\0"s + std::string(48, 'x');
}

struct Lie {
  std::string offset, size, stride, why;
};

TEST(TorchFile, TensorsThatLeaveTheirStorageAreRefused) {
  const Lie lies[] = {
      {"0", "I13\n", "I1\n", "beyond its storage"},
      {"1", "I12\n", "I1\n", "beyond its storage"},
      {"-1", "I2\n", "I1\n", "storage, offset, size, stride"},
      {"0", "I-2\n", "I1\n", "whole numbers"},
      {"0", "I2\n", "I-1\n", "whole numbers"},
      {"0", "I2\n", "I12\n", "beyond its storage"},
      {"0", "I4611686018427387904\nI8\n", "I0\nI0\n", "beyond its storage"},
      {"0", "I2\nI9223372036854775807\n", "I9223372036854775807\nI1\n", "beyond its storage"},
      {"0", "I100\nI2\n", "I0\nI1\n", "expanded"},
      {"0", "I2\n", "", "do not go together"},
      {"0", "S'2'\n", "I1\n", "whole numbers"},
  };
  for (const Lie& lie : lies) {
    const std::string text = stream_of(tensor_over_twelve(lie.offset, lie.size, lie.stride));
    const auto file = TorchFile::open(as_bytes(text));
    ASSERT_TRUE(file) << file.error().message();
    reset_largest_allocation();
    const auto tensor = (*file)->tensor((*file)->tree().root);
    EXPECT_LT(largest_allocation(), 64U << 10);
    ASSERT_FALSE(tensor) << lie.size;
    EXPECT_THAT(tensor.error().why, HasSubstr(lie.why));
  }
  const std::string honest = stream_of(tensor_over_twelve("1", "I3\nI2\n", "I1\nI4\n"));
  const auto file = TorchFile::open(as_bytes(honest));
  ASSERT_TRUE(file) << file.error().message();
  const auto tensor = (*file)->tensor((*file)->tree().root);
  ASSERT_TRUE(tensor) << tensor.error().message();
  EXPECT_EQ(tensor->bytes.size(), 24U);
}

}  // namespace
}  // namespace kvfs::container

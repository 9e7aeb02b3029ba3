// A device that is lost while a model is on it: every call says so in a sentence, nothing throws, and
// all of it can be let go. In a program of its own, since the device stays lost to the process.
#include "engine/model/cuda/kernels.h"
#include "tests/engine/model/cuda/loaded_model.h"

namespace kvfs::model::cuda {
namespace {

TEST(CudaLostDevice, EveryCallSaysSoAndAllCanBeLetGo) {
  if (!has_gpu()) GTEST_SKIP() << "no NVIDIA GPU here";
  Loaded loaded = load(Compute::kFast);
  Model& model = *loaded.model;
  const auto sequence = model.new_sequence();
  must(model.prefill(*sequence, std::vector<TokenId>(300, 7), {}));
  const KvPiece piece = value_of(model.kv_out(*sequence, 0, 0)).front();
  const auto fork = model.fork(*sequence);

  // A kernel that writes where nothing is.
  auto* nowhere = reinterpret_cast<float*>(std::uintptr_t{8});
  must(add(nowhere, nowhere, 1000, nullptr));
  ASSERT_NE(cudaDeviceSynchronize(), cudaSuccess);

  const auto says_so = [](const auto& result, const char* what) {
    ASSERT_FALSE(result) << what;
    EXPECT_EQ(result.error().code, ErrorCode::kIo) << what;
    EXPECT_NE(result.error().message().find("illegal memory access"), std::string::npos)
        << what << ": " << result.error().message();
    EXPECT_NE(result.error().message().find("restart kvfsd"), std::string::npos) << what;
  };
  std::vector<float> logits(static_cast<std::size_t>(model.info().vocab_size));
  says_so(model.prefill(*sequence, std::vector<TokenId>(20, 7), logits), "reading");
  EXPECT_EQ(sequence->next_pos(), 300);
  DecodeItem item{fork.get(), 5, logits};
  says_so(model.decode({&item, 1}), "generating");
  EXPECT_EQ(fork->next_pos(), 300);
  says_so(model.kv_out(*sequence, 0, 0), "taking KV out");
  const auto other = model.new_sequence();
  says_so(model.kv_room(*other, 256), "making room");
  const DeviceChoice gpu{.kind = DeviceChoice::Kind::kCuda};
  EXPECT_FALSE(load_model(*loaded.card, {.device = gpu})) << "another model cannot be loaded";
}

}  // namespace
}  // namespace kvfs::model::cuda

// What the device cannot do is refused in a sentence, and changes nothing.
#include <c10/cuda/CUDACachingAllocator.h>

#include "tests/engine/model/cuda/loaded_model.h"

namespace kvfs::model::cuda {
namespace {

class CudaRefusals : public CudaModelTest {};

TEST_F(CudaRefusals, MemoryForKvRunsOutAndComesBack) {
  constexpr std::uint64_t kPageBytes =
      std::uint64_t{30} * 2 * 3 * 256 * 64 * 2;  // the default model's
  const Loaded loaded = load(Compute::kFast, 3 * kPageBytes);
  Model& model = *loaded.model;
  EXPECT_EQ(model.kv_bytes_budget(), 3 * kPageBytes);
  EXPECT_EQ(model.kv_bytes_used(), 0U);
  const auto first = model.new_sequence();
  must(model.prefill(*first, std::vector<TokenId>(400, 7), {}));
  EXPECT_EQ(model.kv_bytes_used(), 2 * kPageBytes);

  const auto second = model.new_sequence();
  const Status refused = model.prefill(*second, std::vector<TokenId>(400, 7), {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kTooLarge);
  EXPECT_EQ(second->next_pos(), 0);
  EXPECT_EQ(model.kv_bytes_used(), 2 * kPageBytes) << "what was reserved is given back";

  // The second of a batch finds no page: the first must not have moved either.
  must(model.prefill(*second, std::vector<TokenId>(256, 7), {}));
  std::vector<float> logits(static_cast<std::size_t>(model.info().vocab_size));
  DecodeItem items[2] = {{first.get(), 5, logits}, {second.get(), 5, logits}};
  const Status no_page = model.decode(items);
  ASSERT_FALSE(no_page);
  EXPECT_EQ(no_page.error().code, ErrorCode::kTooLarge);
  EXPECT_EQ(first->next_pos(), 400);
  EXPECT_EQ(second->next_pos(), 256);
  must(model.decode({items, 1}));

  must(model.truncate(*first, 0));
  must(model.decode({items + 1, 1}));
  EXPECT_EQ(model.kv_bytes_used(), 2 * kPageBytes);
}

TEST_F(CudaRefusals, WrongInputIsNamed) {
  Model& fast = model(Compute::kFast);
  const auto sequence = fast.new_sequence();
  const auto code = [](const Status& status) {
    return status ? ErrorCode::kInternal : status.error().code;
  };
  EXPECT_EQ(code(fast.prefill(*sequence, {}, {})), ErrorCode::kInvalid);
  EXPECT_EQ(code(fast.prefill(*sequence, std::vector<TokenId>{1, fast.info().vocab_size}, {})),
            ErrorCode::kInvalid);
  EXPECT_EQ(code(fast.prefill(*sequence, std::vector<TokenId>{-1}, {})), ErrorCode::kInvalid);
  const std::vector<TokenId> too_many(static_cast<std::size_t>(fast.info().context_length) + 1, 7);
  EXPECT_EQ(code(fast.prefill(*sequence, too_many, {})), ErrorCode::kTooLarge);
  EXPECT_EQ(code(fast.decode({})), ErrorCode::kInvalid);
  EXPECT_EQ(code(fast.truncate(*sequence, 1)), ErrorCode::kInvalid);
  EXPECT_EQ(code(fast.set_next_pos(*sequence, 1)), ErrorCode::kInvalid);
  EXPECT_EQ(sequence->next_pos(), 0);

  must(fast.prefill(*sequence, std::vector<TokenId>(300, 7), {}));
  KvPiece piece = value_of(fast.kv_out(*sequence, 0, 1)).front();
  EXPECT_FALSE(fast.kv_out(*sequence, 0, 2));
  EXPECT_FALSE(fast.kv_out(*sequence, 30, 0));
  const auto other = fast.new_sequence();
  must(fast.kv_in(*other, piece));
  EXPECT_EQ(code(fast.set_next_pos(*other, 300)), ErrorCode::kInvalid) << "block 1 without block 0";
  must(fast.truncate(*other, 0));
  piece = value_of(fast.kv_out(*sequence, 0, 0)).front();
  must(fast.kv_in(*other, piece));
  EXPECT_EQ(code(fast.set_next_pos(*other, 256)), ErrorCode::kInvalid) << "one layer of thirty";
  piece.positions[7] = 9000;
  EXPECT_EQ(code(fast.kv_in(*other, piece)), ErrorCode::kInvalid) << "a position elsewhere";
  piece.key.pop_back();
  EXPECT_EQ(code(fast.kv_in(*other, piece)), ErrorCode::kInvalid) << "a byte is missing";
}

// Other programs' memory, as far as this one can tell.
class Hoard {
 public:
  // Takes all but about this much.
  explicit Hoard(std::size_t leave) {
    for (std::size_t step = std::size_t{1} << 34; step >= (std::size_t{1} << 20); step /= 2) {
      void* piece = nullptr;
      while (free_bytes() > leave + step && cudaMalloc(&piece, step) == cudaSuccess)
        pieces_.push_back(piece);
    }
    (void)cudaGetLastError();
  }
  ~Hoard() {
    for (void* piece : pieces_) cudaFree(piece);
  }
  Hoard(const Hoard&) = delete;
  Hoard& operator=(const Hoard&) = delete;
  static std::size_t free_bytes() {
    std::size_t free = 0;
    std::size_t all = 0;
    must(cudaMemGetInfo(&free, &all));
    return free;
  }

 private:
  std::vector<void*> pieces_;
};

TEST_F(CudaRefusals, AModelThatDoesNotFitIsRefusedWithTheFigures) {
  const DeviceChoice gpu{.kind = DeviceChoice::Kind::kCuda};
  const auto card = value_of(read_card(model_path(), Compute::kFast, gpu, {}));
  {
    const Hoard others(std::size_t{512} << 20);
    const auto refused = load_model(*card, {.device = gpu});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kTooLarge);
    EXPECT_NE(refused.error().message().find("MiB free"), std::string::npos)
        << refused.error().message();
  }
  EXPECT_TRUE(load_model(*card, {.device = gpu})) << "when the others have gone";
}

TEST_F(CudaRefusals, MemoryThatOthersTookIsAnErrorThatChangesNothing) {
  const Loaded loaded = load(Compute::kFast);
  Model& model = *loaded.model;
  const auto sequence = model.new_sequence();
  const std::vector<TokenId> tokens(500, 7);
  const std::vector<float> before = read(model, *sequence, tokens);
  std::vector<std::unique_ptr<Sequence>> more;
  {
    c10::cuda::CUDACachingAllocator::emptyCache();  // what earlier tests gave back is still ours
    const Hoard others(std::size_t{64} << 20);
    Status done;
    for (int i = 0; i < 200 && done; ++i) {
      more.push_back(model.new_sequence());
      done = model.prefill(*more.back(), tokens, {});
    }
    ASSERT_FALSE(done) << "there was memory after all";
    EXPECT_EQ(done.error().code, ErrorCode::kTooLarge);
    EXPECT_NE(done.error().message().find("device is out of memory"), std::string::npos)
        << done.error().message();
    EXPECT_EQ(more.back()->next_pos(), 0);
  }
  const auto again = model.new_sequence();
  EXPECT_EQ(read(model, *again, tokens), before) << "the model is as it was";
  EXPECT_EQ(generate(model, *sequence, 9), generate(model, *again, 9));
}

TEST_F(CudaRefusals, ADeviceThatIsNotThereIsRefused) {
  const auto card =
      read_card(model_path(), Compute::kFast, {.kind = DeviceChoice::Kind::kCuda, .index = 99}, {});
  ASSERT_FALSE(card);
  EXPECT_EQ(card.error().code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace kvfs::model::cuda

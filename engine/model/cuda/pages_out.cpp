#include "engine/model/cuda/pages_out.h"

#include <numeric>
#include <string>
#include <utility>

namespace kvfs::model::cuda {
namespace {

tl::unexpected<Error> lost(const char* why) {
  return fail(ErrorCode::kIo, "copy KV from the device to memory", why,
              "restart kvfsd; if it happens again, run with --device cpu");
}

class OnItsWay final : public KvOut {
 public:
  explicit OnItsWay(std::future<Result<std::vector<KvPiece>>> pieces)
      : pieces_(std::move(pieces)) {}
  Result<std::vector<KvPiece>> take() override { return pieces_.get(); }

 private:
  std::future<Result<std::vector<KvPiece>>> pieces_;
};

}  // namespace

PagesOut::PagesOut(const PageShape& shape, int device)
    : shape_(shape),
      device_(device),
      memory_(staging_.room(static_cast<std::size_t>(shape.page_bytes()))),
      thread_([this] { loop(); }) {}

PagesOut::~PagesOut() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

Result<std::unique_ptr<KvOut>> PagesOut::send(std::shared_ptr<const PagePool::Page> page,
                                              Position begin, int count, cudaStream_t after) {
  cudaEvent_t ready = nullptr;
  cudaError_t error = cudaEventCreateWithFlags(&ready, cudaEventDisableTiming);
  if (error == cudaSuccess) error = cudaEventRecord(ready, after);
  if (error != cudaSuccess) return lost(cudaGetErrorString(error));
  std::promise<Pieces> done;
  auto out = std::make_unique<OnItsWay>(done.get_future());
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back({std::move(page), begin, count, ready, std::move(done)});
  }
  wake_.notify_one();
  return out;
}

void PagesOut::loop() {
  cudaSetDevice(device_);
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stop_ || !queue_.empty(); });
    if (queue_.empty()) return;
    Page page = std::move(queue_.front());
    queue_.pop_front();
    const bool stop = stop_;
    lock.unlock();
    page.done.set_value(stop ? Pieces(lost("the model is being unloaded")) : copy(page));
    cudaEventDestroy(page.ready);
    page.page.reset();
    lock.lock();
  }
}

PagesOut::Pieces PagesOut::copy(const Page& page) {
  if (memory_ == nullptr) return lost("there was no memory to pin");
  cudaError_t error = cudaSuccess;
  if (stream_ == nullptr) error = cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking);
  if (error == cudaSuccess) error = cudaStreamWaitEvent(stream_, page.ready);
  if (error == cudaSuccess) {
    error = cudaMemcpyAsync(memory_, page.page->address(),
                            static_cast<std::size_t>(shape_.page_bytes()), cudaMemcpyDeviceToHost,
                            stream_);
  }
  if (error == cudaSuccess) error = cudaStreamSynchronize(stream_);
  if (error != cudaSuccess) return lost(cudaGetErrorString(error));
  std::vector<KvPiece> out;
  for (int layer = 0; layer < shape_.layers; ++layer) out.push_back(piece(layer, page));
  return out;
}

KvPiece PagesOut::piece(int layer, const Page& page) const {
  if (shape_.convolves(layer)) {
    const auto* rows = reinterpret_cast<const std::uint8_t*>(memory_) +
                       static_cast<std::size_t>(shape_.offset(layer, 0)) * size_of(shape_.dtype);
    return shape_.inputs(static_cast<std::uint16_t>(layer), page.begin, page.count,
                         {rows, shape_.input_bytes(layer, shape_.kind(layer).kept)});
  }
  KvPiece out{.layer = static_cast<std::uint16_t>(layer),
              .head_begin = 0,
              .head_count = static_cast<std::uint16_t>(shape_.kv_heads),
              .positions = std::vector<Position>(static_cast<std::size_t>(page.count)),
              .key = {},
              .value = {}};
  std::iota(out.positions.begin(), out.positions.end(), page.begin);
  const std::size_t row = static_cast<std::size_t>(shape_.width) * size_of(shape_.dtype);
  const std::size_t head = static_cast<std::size_t>(kBlockTokens) * row;
  const std::size_t wanted = static_cast<std::size_t>(page.count) * row;
  for (const int side : {0, 1}) {
    Bytes& to = side == 0 ? out.key : out.value;
    const auto* from = reinterpret_cast<const std::uint8_t*>(memory_) +
                       static_cast<std::size_t>(shape_.offset(layer, side)) * size_of(shape_.dtype);
    const auto heads = static_cast<std::size_t>(shape_.kv_heads);
    if (wanted == head) {
      to.assign(from, from + heads * head);
      continue;
    }
    to.reserve(heads * wanted);
    for (std::size_t h = 0; h < heads; ++h) {
      to.insert(to.end(), from + h * head, from + h * head + wanted);
    }
  }
  return out;
}

}  // namespace kvfs::model::cuda

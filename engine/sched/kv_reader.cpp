#include "engine/sched/kv_reader.h"

#include <algorithm>
#include <tuple>

namespace kvfs::sched {
namespace {

constexpr std::size_t kThreads = 2;
constexpr std::size_t kAhead = 16;  // pieces in memory: 3 MB for SmolLM2-135M, within the caches

}  // namespace

KvReader::KvReader(store::Store& store, const std::vector<store::BlockRecord>& blocks,
                   std::function<void()> wake)
    : store_(store), wake_(std::move(wake)) {
  for (const auto& block : blocks) {
    order_.insert(order_.end(), block.segments.begin(), block.segments.end());
  }
  // Stable: within a layer, blocks stay in ascending order and heads in theirs.
  std::ranges::stable_sort(order_, {}, &store::Segment::layer);
  slots_.resize(order_.size());
  for (std::size_t i = 0; i < std::min(kThreads, order_.size()); ++i) {
    threads_.emplace_back([this] { loop(); });
  }
}

KvReader::~KvReader() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  room_.notify_all();
  for (auto& thread : threads_) thread.join();
}

bool KvReader::done() const {
  const std::lock_guard lock(mutex_);
  return next_out_ == order_.size();
}

std::optional<Result<KvPiece>> KvReader::poll() {
  std::optional<Result<KvPiece>> piece;
  {
    const std::lock_guard lock(mutex_);
    if (next_out_ == order_.size() || !slots_[next_out_]) return std::nullopt;
    piece = std::move(slots_[next_out_]);
    slots_[next_out_++].reset();
  }
  room_.notify_one();
  return piece;
}

void KvReader::take_back(KvPiece used) {
  const std::lock_guard lock(mutex_);
  spare_.push_back(std::move(used));
}

void KvReader::loop() {
  std::unique_lock lock(mutex_);
  while (true) {
    room_.wait(lock, [this] {
      return stop_ || next_read_ == order_.size() || next_read_ < next_out_ + kAhead;
    });
    if (stop_ || next_read_ == order_.size()) {
      room_.notify_all();
      return;
    }
    const std::size_t mine = next_read_++;
    KvPiece used;
    if (!spare_.empty()) {
      used = std::move(spare_.back());
      spare_.pop_back();
    }
    lock.unlock();
    auto piece = store_.read_segment(order_[mine], std::move(used));
    lock.lock();
    slots_[mine] = std::move(piece);
    if (mine == next_out_) {
      lock.unlock();
      wake_();
      lock.lock();
    }
  }
}

}  // namespace kvfs::sched

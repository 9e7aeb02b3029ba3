#include "engine/sched/kv_reader.h"

#include <algorithm>
#include <tuple>

namespace kvfs::sched {
namespace {

constexpr std::size_t kReaders = 2;       // the engine thread puts in what they read
constexpr std::size_t kMostPutters = 12;  // beyond that, memory is what they wait for
constexpr std::size_t kAhead = 16;  // pieces in memory: 3 MB for SmolLM2-135M, within the caches

}  // namespace

KvReader::KvReader(store::Store& store, const std::vector<store::BlockRecord>& blocks,
                   std::function<void()> wake, Put put)
    : store_(store), wake_(std::move(wake)), put_(std::move(put)) {
  for (const auto& block : blocks) {
    order_.insert(order_.end(), block.segments.begin(), block.segments.end());
  }
  // Stable: within a layer, blocks stay in ascending order and heads in theirs.
  std::ranges::stable_sort(order_, {}, &store::Segment::layer);
  if (!put_) slots_.resize(order_.size());
  const std::size_t cores = std::max(std::thread::hardware_concurrency(), 1U);
  const std::size_t threads = put_ ? std::min(cores, kMostPutters) : kReaders;
  for (std::size_t i = 0; i < std::min(threads, order_.size()); ++i) {
    threads_.emplace_back([this] { put_ ? read_and_put() : read_ahead(); });
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
  return out_ == order_.size();
}

std::optional<Result<KvPiece>> KvReader::poll() {
  std::optional<Result<KvPiece>> piece;
  {
    const std::lock_guard lock(mutex_);
    if (failure_) return fail(*failure_);
    if (put_ || out_ == order_.size() || !slots_[out_]) return std::nullopt;
    piece = std::move(slots_[out_]);
    slots_[out_++].reset();
  }
  room_.notify_one();
  return piece;
}

void KvReader::take_back(KvPiece used) {
  const std::lock_guard lock(mutex_);
  spare_.push_back(std::move(used));
}

void KvReader::read_ahead() {
  std::unique_lock lock(mutex_);
  while (true) {
    room_.wait(lock, [this] {
      return stop_ || next_read_ == order_.size() || next_read_ < out_ + kAhead;
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
    if (mine == out_) {
      lock.unlock();
      wake_();
      lock.lock();
    }
  }
}

void KvReader::read_and_put() {
  if (put_.stored) {
    read_and_put(put_.stored, [this](const store::Segment& segment, chunk::StoredPiece used) {
      return store_.read_stored_segment(segment, std::move(used));
    });
  } else {
    read_and_put(put_.decoded, [this](const store::Segment& segment, KvPiece used) {
      return store_.read_segment(segment, std::move(used));
    });
  }
}

template <class Piece, class Read>
void KvReader::read_and_put(const std::function<Status(const Piece&)>& put, const Read& read_one) {
  Piece piece;
  std::unique_lock lock(mutex_);
  while (!stop_ && !failure_ && next_read_ < order_.size()) {
    const std::size_t mine = next_read_++;
    lock.unlock();
    auto read = read_one(order_[mine], std::move(piece));
    Status done;
    if (!read) {
      done = fail(read.error());
    } else {
      piece = *std::move(read);
      done = put(piece);
    }
    lock.lock();
    ++out_;
    if (!done && !failure_) failure_ = done.error();
    if (!done || out_ == order_.size()) {
      lock.unlock();
      wake_();
      lock.lock();
    }
  }
}

}  // namespace kvfs::sched

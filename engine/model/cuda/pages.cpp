#include "engine/model/cuda/pages.h"

#include <c10/cuda/CUDAStream.h>
#include <c10/util/Exception.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <string>
#include <utility>

namespace kvfs::model::cuda {
namespace {

int pages_for(Position positions) { return (positions + kBlockTokens - 1) / kBlockTokens; }

Status check_piece(const KvPiece& piece, const PageShape& shape) {
  const std::string what = "KV of layer " + std::to_string(piece.layer);
  const std::size_t count = piece.positions.size();
  if (piece.layer >= shape.layers || piece.head_count == 0 ||
      piece.head_begin + piece.head_count > shape.kv_heads || count == 0 ||
      count > static_cast<std::size_t>(kBlockTokens) || piece.positions[0] < 0) {
    return fail(ErrorCode::kInvalid, what, "layer, heads or positions outside of the model's");
  }
  const std::size_t row = static_cast<std::size_t>(shape.width) * size_of(shape.dtype);
  if (piece.key.size() != piece.head_count * count * row ||
      piece.value.size() != piece.key.size()) {
    return fail(ErrorCode::kInvalid, what,
                "the bytes are not heads × positions × width of the model's KV type");
  }
  for (std::size_t i = 0; i < count; ++i) {
    if (piece.positions[i] != piece.positions[0] + static_cast<Position>(i) ||
        piece.positions[0] % kBlockTokens != 0) {
      return fail(ErrorCode::kUnsupported, what, "positions are missing inside the block",
                  "run the state with --device cpu");
    }
  }
  return {};
}

}  // namespace

PagePool::Page::Page(PagePool& pool_in, at::Tensor data_in)
    : pool(pool_in), data(std::move(data_in)) {
  pool.used_ += static_cast<std::uint64_t>(pool.shape_.page_bytes());
}
PagePool::Page::~Page() { pool.used_ -= static_cast<std::uint64_t>(pool.shape_.page_bytes()); }

Result<std::shared_ptr<PagePool::Page>> PagePool::make() {
  const auto bytes = static_cast<std::uint64_t>(shape_.page_bytes());
  if (used_ + bytes > budget_) {
    return fail(ErrorCode::kTooLarge, "KV of " + std::to_string(kBlockTokens) + " more tokens",
                std::to_string(used_ >> 20) + " of " + std::to_string(budget_ >> 20) +
                    " MiB of device memory for KV are in use",
                "end other jobs, or give more with --kv-budget");
  }
  try {
    return std::make_shared<Page>(
        *this,
        at::zeros({shape_.page_bytes()}, at::TensorOptions().dtype(at::kByte).device(device_)));
  } catch (const c10::OutOfMemoryError&) {
    return fail(ErrorCode::kTooLarge, "KV of " + std::to_string(kBlockTokens) + " more tokens",
                "the device is out of memory", "end other jobs or programs on it");
  }
}

Status DeviceSequence::make_own(std::size_t index) {
  if (index < pages_.size() && pages_[index].use_count() == 1) return {};
  KVFS_ASSIGN(auto page, pool_->make());
  if (index < pages_.size()) {
    page->data.copy_(pages_[index]->data);
    pages_[index] = std::move(page);
  } else {
    pages_.push_back(std::move(page));
  }
  return {};
}

Status DeviceSequence::reserve(int count) {
  const std::size_t before = pages_.size();
  const auto first = static_cast<std::size_t>(next_pos_ / kBlockTokens);
  const auto end = static_cast<std::size_t>(pages_for(next_pos_ + count));
  for (std::size_t index = first; index < end; ++index) {
    if (Status made = make_own(index); !made) {
      pages_.resize(before);
      return made;
    }
  }
  return {};
}

void DeviceSequence::truncate(Position end) {
  settle();
  next_pos_ = end;
  pages_.resize(std::min(pages_.size(), static_cast<std::size_t>(pages_for(end))));
  filled_.clear();
}

std::unique_ptr<DeviceSequence> DeviceSequence::fork() const {
  auto copy = std::make_unique<DeviceSequence>(*pool_);
  copy->pages_ = pages_;
  copy->next_pos_ = next_pos_;
  return copy;
}

Result<KvPiece> DeviceSequence::read(std::uint16_t layer, std::int32_t block) const {
  const PageShape& shape = pool_->shape();
  const int count = std::min(kBlockTokens, next_pos_ - block * kBlockTokens);
  if (block < 0 || count <= 0 || layer >= shape.layers) {
    return fail(
        ErrorCode::kInvalid, "take KV out",
        "there is no block " + std::to_string(block) + " of layer " + std::to_string(layer));
  }
  KvPiece piece{.layer = layer,
                .head_begin = 0,
                .head_count = static_cast<std::uint16_t>(shape.kv_heads),
                .positions = std::vector<Position>(static_cast<std::size_t>(count)),
                .key = {},
                .value = {}};
  for (int i = 0; i < count; ++i) {
    piece.positions[static_cast<std::size_t>(i)] = block * kBlockTokens + i;
  }
  const Runs keys = runs(layer, 0, block, 0, shape.kv_heads, static_cast<std::size_t>(count));
  const Runs values = runs(layer, 1, block, 0, shape.kv_heads, static_cast<std::size_t>(count));
  piece.key.resize(keys.bytes());
  piece.value.resize(values.bytes());
  KVFS_TRY(pool_->transfers().out(keys, reinterpret_cast<std::byte*>(piece.key.data()), values,
                                  reinterpret_cast<std::byte*>(piece.value.data()),
                                  c10::cuda::getCurrentCUDAStream()));
  return piece;
}

Runs DeviceSequence::runs(int layer, int side, int page, int head, int heads,
                          std::size_t positions) const {
  const PageShape& shape = pool_->shape();
  const std::size_t row = static_cast<std::size_t>(shape.width) * size_of(shape.dtype);
  const std::size_t pitch = static_cast<std::size_t>(kBlockTokens) * row;
  auto* at = static_cast<std::byte*>(page_address(page)) +
             static_cast<std::size_t>(shape.offset(layer, side)) * size_of(shape.dtype) +
             static_cast<std::size_t>(head) * pitch;
  return {at, pitch, positions * row, static_cast<std::size_t>(heads)};
}

Status DeviceSequence::open_transfers() {
  coming_ = true;
  const PageShape& shape = pool_->shape();
  const auto slot = 2 * static_cast<std::size_t>(shape.side_elements()) * size_of(shape.dtype);
  return pool_->transfers().open(slot, c10::cuda::getCurrentCUDAStream());
}

void DeviceSequence::settle() {
  // An error shows again when the device is used next.
  if (std::exchange(coming_, false)) (void)pool_->transfers().wait();
  open_ = false;
}

Status DeviceSequence::open_room(Position end) {
  const std::size_t before = pages_.size();
  const auto pages = static_cast<std::size_t>(pages_for(end));
  for (auto index = static_cast<std::size_t>(next_pos_ / kBlockTokens); index < pages; ++index) {
    if (Status made = make_own(index); !made) {
      pages_.resize(std::max(before, static_cast<std::size_t>(pages_for(next_pos_))));
      return made;
    }
  }
  const PageShape& shape = pool_->shape();
  filled_.resize(std::max(filled_.size(), pages));
  for (auto& page : filled_) {
    page.resize(static_cast<std::size_t>(shape.layers * shape.kv_heads), 0);
  }
  KVFS_TRY(open_transfers());
  open_ = true;
  return {};
}

Status DeviceSequence::write(const KvPiece& piece) {
  const PageShape& shape = pool_->shape();
  KVFS_TRY(check_piece(piece, shape));
  const auto index = static_cast<std::size_t>(piece.positions[0] / kBlockTokens);
  if (index > pages_.size() || (open_ && index >= filled_.size())) {
    return fail(ErrorCode::kInvalid, "KV of layer " + std::to_string(piece.layer),
                open_ ? "it lies outside of the room that was made"
                      : "blocks must come in ascending order");
  }
  if (!open_) {
    KVFS_TRY(make_own(index));
    KVFS_TRY(open_transfers());
    if (filled_.size() <= index) filled_.resize(index + 1);
    filled_[index].resize(static_cast<std::size_t>(shape.layers * shape.kv_heads), 0);
  }
  const int page = static_cast<int>(index);
  const std::size_t positions = piece.positions.size();
  const auto place = [&](int side) {
    return runs(piece.layer, side, page, piece.head_begin, piece.head_count, positions);
  };
  KVFS_TRY(pool_->transfers().in(place(0), reinterpret_cast<const std::byte*>(piece.key.data()),
                                 place(1), reinterpret_cast<const std::byte*>(piece.value.data())));
  const auto head = filled_[index].begin() + piece.layer * shape.kv_heads + piece.head_begin;
  std::fill_n(head, piece.head_count, static_cast<std::int16_t>(positions));
  return {};
}

Status DeviceSequence::set_next_pos(Position next_pos) {
  const std::string what = "set the next position to " + std::to_string(next_pos);
  if (next_pos < 0 || next_pos > static_cast<Position>(pages_.size()) * kBlockTokens) {
    return fail(ErrorCode::kInvalid, what,
                "there is KV for " + std::to_string(pages_.size()) + " blocks only");
  }
  for (std::size_t page = 0; page < static_cast<std::size_t>(pages_for(next_pos)); ++page) {
    const int begin = static_cast<int>(page) * kBlockTokens;
    const int needed = std::min(kBlockTokens, next_pos - begin);
    const int known = std::clamp(next_pos_ - begin, 0, kBlockTokens);
    const bool put = page < filled_.size() && !filled_[page].empty();
    const int least = put ? *std::min_element(filled_[page].begin(), filled_[page].end()) : 0;
    if (std::max(least, known) < needed) {
      return fail(ErrorCode::kInvalid, what,
                  "block " + std::to_string(page) + " lacks KV of some layer or head");
    }
  }
  coming_ = open_ = false;
  KVFS_TRY(pool_->transfers().wait());
  truncate(next_pos);
  return {};
}

}  // namespace kvfs::model::cuda

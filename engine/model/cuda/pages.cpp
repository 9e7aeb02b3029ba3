#include "engine/model/cuda/pages.h"

#include <ATen/cuda/CUDAContext.h>
#include <c10/util/Exception.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <string>

namespace kvfs::model::cuda {
namespace {

int pages_for(Position positions) { return (positions + kBlockTokens - 1) / kBlockTokens; }

Status copied(cudaError_t error) {
  if (error == cudaSuccess) return {};
  return fail(ErrorCode::kIo, "copy KV between the device and memory", cudaGetErrorString(error),
              "restart kvfsd; if it happens again, run with --device cpu");
}

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
  const std::size_t element = size_of(shape.dtype);
  const std::size_t run = static_cast<std::size_t>(count * shape.width) * element;
  const std::size_t pitch = static_cast<std::size_t>(kBlockTokens * shape.width) * element;
  const auto heads = static_cast<std::size_t>(shape.kv_heads);
  const auto* page = static_cast<const std::uint8_t*>(page_address(block));
  for (int side = 0; side < 2; ++side) {
    Bytes& out = side == 0 ? piece.key : piece.value;
    out.resize(heads * run);
    KVFS_TRY(copied(cudaMemcpy2DAsync(
        out.data(), run, page + static_cast<std::size_t>(shape.offset(layer, side)) * element,
        pitch, run, heads, cudaMemcpyDeviceToHost, at::cuda::getCurrentCUDAStream())));
  }
  KVFS_TRY(copied(cudaStreamSynchronize(at::cuda::getCurrentCUDAStream())));
  return piece;
}

Status DeviceSequence::write(const KvPiece& piece) {
  const PageShape& shape = pool_->shape();
  KVFS_TRY(check_piece(piece, shape));
  const auto index = static_cast<std::size_t>(piece.positions[0] / kBlockTokens);
  if (index > pages_.size()) {
    return fail(ErrorCode::kInvalid, "KV of layer " + std::to_string(piece.layer),
                "blocks must come in ascending order");
  }
  KVFS_TRY(make_own(index));
  const std::size_t element = size_of(shape.dtype);
  const std::size_t run = piece.positions.size() * static_cast<std::size_t>(shape.width) * element;
  const std::size_t pitch = static_cast<std::size_t>(kBlockTokens * shape.width) * element;
  auto* page = static_cast<std::uint8_t*>(page_address(static_cast<int>(index)));
  for (int side = 0; side < 2; ++side) {
    const Bytes& from = side == 0 ? piece.key : piece.value;
    const std::size_t at = static_cast<std::size_t>(shape.offset(piece.layer, side)) * element;
    KVFS_TRY(copied(cudaMemcpy2DAsync(page + at + piece.head_begin * pitch, pitch, from.data(), run,
                                      run, piece.head_count, cudaMemcpyHostToDevice,
                                      at::cuda::getCurrentCUDAStream())));
  }
  // The piece may go away when this returns.
  KVFS_TRY(copied(cudaStreamSynchronize(at::cuda::getCurrentCUDAStream())));
  if (filled_.size() <= index) filled_.resize(index + 1);
  filled_[index].resize(static_cast<std::size_t>(shape.layers * shape.kv_heads), 0);
  const auto head = filled_[index].begin() + piece.layer * shape.kv_heads + piece.head_begin;
  std::fill_n(head, piece.head_count, static_cast<std::int16_t>(piece.positions.size()));
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
  truncate(next_pos);
  return {};
}

}  // namespace kvfs::model::cuda

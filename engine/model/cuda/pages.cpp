#include "engine/model/cuda/pages.h"

#include <ATen/cuda/CUDAContext.h>
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

}  // namespace

PagePool::Page::Page(PagePool& pool_in, at::Tensor data_in) : pool(pool_in), data(std::move(data_in)) {
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
  return std::make_shared<Page>(
      *this, at::zeros({shape_.page_bytes()}, at::TensorOptions().dtype(at::kByte).device(device_)));
}

Status DeviceSequence::make_own(std::size_t index) {
  if (pages_[index].use_count() == 1) return {};
  KVFS_ASSIGN(auto page, pool_->make());
  page->data.copy_(pages_[index]->data);
  pages_[index] = std::move(page);
  return {};
}

Status DeviceSequence::reserve(int count) {
  const auto before = pages_.size();
  const auto needed = static_cast<std::size_t>(pages_for(next_pos_ + count));
  Status status;
  if (next_pos_ % kBlockTokens != 0 && count > 0) status = make_own(before - 1);
  while (status && pages_.size() < needed) {
    if (auto page = pool_->make()) {
      pages_.push_back(*std::move(page));
    } else {
      status = fail(std::move(page).error());
    }
  }
  if (!status) pages_.resize(before);
  written_.resize(pages_.size());
  return status;
}

void DeviceSequence::truncate(Position end) {
  next_pos_ = std::min(next_pos_, end);
  pages_.resize(static_cast<std::size_t>(pages_for(next_pos_)));
  written_.assign(pages_.size(), 0);
}

std::unique_ptr<DeviceSequence> DeviceSequence::fork() const {
  return std::make_unique<DeviceSequence>(*this);
}

Result<KvPiece> DeviceSequence::read(std::uint16_t layer, std::int32_t block) const {
  const PageShape& shape = pool_->shape();
  const int count = std::min(kBlockTokens, next_pos_ - block * kBlockTokens);
  if (block < 0 || count <= 0 || layer >= shape.layers) {
    return fail(ErrorCode::kInternal, "read KV of block " + std::to_string(block), "no such block");
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
        out.data(), run, page + static_cast<std::size_t>(shape.offset(layer, side)) * element, pitch,
        run, heads, cudaMemcpyDeviceToHost, at::cuda::getCurrentCUDAStream())));
  }
  KVFS_TRY(copied(cudaStreamSynchronize(at::cuda::getCurrentCUDAStream())));
  return piece;
}

Status DeviceSequence::write(const KvPiece& piece) {
  const PageShape& shape = pool_->shape();
  const Position first = piece.positions.empty() ? 0 : piece.positions.front();
  const auto count = static_cast<Position>(piece.positions.size());
  const std::size_t element = size_of(shape.dtype);
  const std::size_t run = piece.positions.size() * static_cast<std::size_t>(shape.width) * element;
  const bool plain = count > 0 && count <= kBlockTokens && first % kBlockTokens == 0 &&
                     piece.positions.back() == first + count - 1 && piece.layer < shape.layers &&
                     piece.head_begin + piece.head_count <= shape.kv_heads &&
                     piece.key.size() == run * piece.head_count && piece.value.size() == piece.key.size();
  const auto index = static_cast<std::size_t>(first / kBlockTokens);
  if (!plain || index > pages_.size()) {
    return fail(ErrorCode::kUnsupported, "put back KV of layer " + std::to_string(piece.layer),
                "positions that are not a run from a block's beginning",
                "a pruned state cannot continue on this device yet");
  }
  if (index == pages_.size()) {
    KVFS_ASSIGN(auto page, pool_->make());
    pages_.push_back(std::move(page));
    written_.push_back(0);
  }
  KVFS_TRY(make_own(index));
  const std::size_t pitch = static_cast<std::size_t>(kBlockTokens * shape.width) * element;
  auto* page = static_cast<std::uint8_t*>(page_address(static_cast<int>(index)));
  for (int side = 0; side < 2; ++side) {
    const Bytes& from = side == 0 ? piece.key : piece.value;
    const std::size_t at = static_cast<std::size_t>(shape.offset(piece.layer, side)) * element;
    KVFS_TRY(copied(cudaMemcpy2DAsync(page + at + piece.head_begin * pitch, pitch, from.data(), run, run,
                                      piece.head_count, cudaMemcpyHostToDevice,
                                      at::cuda::getCurrentCUDAStream())));
  }
  written_[index] += std::int64_t{count} * piece.head_count;
  return copied(cudaStreamSynchronize(at::cuda::getCurrentCUDAStream()));
}

Status DeviceSequence::set_next_pos(Position next_pos) {
  const PageShape& shape = pool_->shape();
  bool whole = pages_for(next_pos) == pages() && next_pos >= next_pos_;
  for (int i = next_pos_ / kBlockTokens; whole && i < pages(); ++i) {
    const int positions = std::min(kBlockTokens, next_pos - i * kBlockTokens);
    const std::int64_t all = std::int64_t{positions} * shape.layers * shape.kv_heads;
    whole = written_[static_cast<std::size_t>(i)] == all || next_pos == next_pos_;
  }
  if (!whole) {
    return fail(ErrorCode::kInvalid, "put back KV up to position " + std::to_string(next_pos),
                "layers or blocks are missing");
  }
  next_pos_ = next_pos;
  written_.assign(pages_.size(), 0);
  return {};
}

}  // namespace kvfs::model::cuda

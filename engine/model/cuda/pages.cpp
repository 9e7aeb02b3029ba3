#include "engine/model/cuda/pages.h"

#include <c10/cuda/CUDAStream.h>
#include <c10/util/Exception.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <string>
#include <utility>

#include "engine/model/cuda/moved_pages.h"
#include "engine/model/cuda/sparse_pages.h"

namespace kvfs::model::cuda {
namespace {

int pages_for(Position positions) { return (positions + kBlockTokens - 1) / kBlockTokens; }

tl::unexpected<Error> not_the_models(int layer) {
  return fail(ErrorCode::kInvalid, "KV of layer " + std::to_string(layer),
              "the bytes are not heads × positions × width of the model's KV type");
}

}  // namespace

PagePool::Page::Page(PagePool& pool_in, at::Tensor data_in, std::optional<SparseEntries> sparse_in)
    : pool(pool_in), data(std::move(data_in)), sparse(std::move(sparse_in)) {
  pool.used_ += static_cast<std::uint64_t>(data.numel());
}
PagePool::Page::~Page() { pool.used_ -= static_cast<std::uint64_t>(data.numel()); }

Result<std::shared_ptr<PagePool::Page>> PagePool::make() { return make(shape_.page_bytes(), {}); }

Result<std::shared_ptr<PagePool::Page>> PagePool::make_sparse(std::size_t bytes,
                                                              SparseEntries entries) {
  return make(static_cast<std::int64_t>(bytes), std::move(entries));
}

Result<std::shared_ptr<PagePool::Page>> PagePool::make(std::int64_t bytes,
                                                       std::optional<SparseEntries> entries) {
  if (used_ + static_cast<std::uint64_t>(bytes) > budget_) {
    return fail(ErrorCode::kTooLarge, "KV of " + std::to_string(kBlockTokens) + " more tokens",
                std::to_string(used_ >> 20) + " of " + std::to_string(budget_ >> 20) +
                    " MiB of device memory for KV are in use",
                "end other jobs, or give more with --kv-budget");
  }
  try {
    return std::make_shared<Page>(
        *this, at::zeros({bytes}, at::TensorOptions().dtype(at::kByte).device(device_)),
        std::move(entries));
  } catch (const c10::OutOfMemoryError&) {
    return fail(ErrorCode::kTooLarge, "KV of " + std::to_string(kBlockTokens) + " more tokens",
                "the device is out of memory", "end other jobs or programs on it");
  }
}

Status DeviceSequence::make_own(std::size_t index) {
  if (index < pages_.size() && pages_[index].use_count() == 1) return {};
  if (index == pages_.size()) {
    KVFS_ASSIGN(pages_.emplace_back(), pool_->make());
    return {};
  }
  const PagePool::Page& old = *pages_[index];
  std::shared_ptr<PagePool::Page> page;
  if (old.sparse) {
    KVFS_ASSIGN(page, pool_->make_sparse(static_cast<std::size_t>(old.data.numel()), *old.sparse));
  } else {
    KVFS_ASSIGN(page, pool_->make());
  }
  page->data.copy_(old.data);
  page->reached = old.reached;
  pages_[index] = std::move(page);
  return {};
}

int DeviceSequence::end_in(std::size_t index) const {
  return std::clamp(next_pos_ - static_cast<int>(index) * kBlockTokens, 0, kBlockTokens);
}

bool DeviceSequence::pruned() const {
  return std::ranges::any_of(pages_, [](const auto& page) { return page->sparse.has_value(); });
}

Status DeviceSequence::reserve(int count) {
  const std::size_t before = pages_.size();
  const auto first = static_cast<std::size_t>(next_pos_ / kBlockTokens);
  const auto end = static_cast<std::size_t>(pages_for(next_pos_ + count));
  const auto make = [&](std::size_t index) -> Status {
    // The history went back behind what was pruned: of the page it goes on in, only what is before.
    if (index < pages_.size() && pages_[index]->sparse &&
        pages_[index]->sparse->tail > end_in(index)) {
      const PagePool::Page& old = *pages_[index];
      const int here = end_in(index);
      KVFS_ASSIGN(pages_[index],
                  page_of(*pool_, old, slots_below(pool_->shape(), old, here), here));
      return {};
    }
    return make_own(index);
  };
  for (std::size_t index = first; index < end; ++index) {
    if (Status made = make(index); !made) {
      pages_.resize(before);
      return made;
    }
  }
  return {};
}

void DeviceSequence::begin_step(int count) {
  for (int page = next_pos_ / kBlockTokens; page < pages_for(next_pos_ + count); ++page) {
    int& reached = pages_[static_cast<std::size_t>(page)]->reached;
    reached = std::min(next_pos_ + count - page * kBlockTokens, kBlockTokens);
  }
}

bool DeviceSequence::can_go_back(Position end) const {
  // At a page's beginning the one before is whole, and so is what it keeps.
  if (end % kBlockTokens == 0) return true;
  const int reached = page(end / kBlockTokens)->reached;
  return reached <= pool_->shape().kept || end % kBlockTokens > reached - 2;
}

bool DeviceSequence::keeps(std::int32_t block, int kept) const {
  const int count = std::min(kBlockTokens, next_pos_ - block * kBlockTokens);
  return page(block)->reached <= std::max(count, kept);
}

void DeviceSequence::truncate(Position end) {
  settle();
  next_pos_ = end;
  pages_.resize(std::min(pages_.size(), static_cast<std::size_t>(pages_for(end))));
  filled_.clear();
  waiting_.clear();
}

std::unique_ptr<DeviceSequence> DeviceSequence::fork() const {
  auto copy = std::make_unique<DeviceSequence>(*pool_);
  copy->pages_ = pages_;
  copy->next_pos_ = next_pos_;
  return copy;
}

Result<std::vector<KvPiece>> DeviceSequence::read(std::uint16_t layer, std::int32_t block) const {
  const PageShape& shape = pool_->shape();
  const int count = std::min(kBlockTokens, next_pos_ - block * kBlockTokens);
  if (block < 0 || count <= 0 || layer >= shape.layers) {
    return fail(
        ErrorCode::kInvalid, "take KV out",
        "there is no block " + std::to_string(block) + " of layer " + std::to_string(layer));
  }
  const PagePool::Page& page = *pages_[static_cast<std::size_t>(block)];
  if (page.sparse) return pieces_of(*pool_, page, layer, block * kBlockTokens, count);
  if (shape.convolves(layer)) return read_inputs(layer, block, count);
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
  std::vector<KvPiece> pieces;
  pieces.push_back(std::move(piece));
  return pieces;
}

Result<std::vector<KvPiece>> DeviceSequence::read_inputs(std::uint16_t layer, std::int32_t block,
                                                         int count) const {
  const PageShape& shape = pool_->shape();
  const int kept = shape.kind(layer).kept;
  if (!keeps(block, kept)) {
    return fail(ErrorCode::kUnsupported, "take KV out of layer " + std::to_string(layer),
                "its oldest input went when the token that was taken back came",
                "compute that token again first");
  }
  const Runs keys = input_run(layer, block, static_cast<std::size_t>(kept));
  Bytes rows(keys.bytes());
  auto* to = reinterpret_cast<std::byte*>(rows.data());
  KVFS_TRY(pool_->transfers().out(keys, to, keys.nothing(), to, c10::cuda::getCurrentCUDAStream()));
  std::vector<KvPiece> pieces;
  pieces.push_back(shape.inputs(layer, block * kBlockTokens, count, rows));
  return pieces;
}

Runs DeviceSequence::input_run(int layer, int page, std::size_t positions) const {
  const PageShape& shape = pool_->shape();
  auto* at = static_cast<std::byte*>(page_address(page)) +
             static_cast<std::size_t>(shape.offset(layer, 0)) * size_of(shape.dtype);
  const std::size_t bytes = shape.input_bytes(layer, positions);
  return {at, bytes, bytes, 1};
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

void DeviceSequence::settle() {
  // An error shows again when the device is used next.
  if (std::exchange(coming_, false)) (void)pool_->transfers().wait(ticket_);
  open_ = false;
}

Status DeviceSequence::open_room(Position end) {
  KVFS_TRY(make_room(end));
  open_ = true;
  return {};
}

Status DeviceSequence::make_room(Position end) {
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
  for (auto index = static_cast<std::size_t>(next_pos_ / kBlockTokens); index < pages; ++index) {
    const int count = end - static_cast<int>(index) * kBlockTokens;
    int& reached = pages_[index]->reached;
    reached = std::max(reached, std::min(count, kBlockTokens));
  }
  coming_ = true;
  KVFS_ASSIGN(ticket_, pool_->transfers().open(c10::cuda::getCurrentCUDAStream()));
  return {};
}

Status DeviceSequence::write(const KvPiece& piece) {
  const PageShape& shape = pool_->shape();
  KVFS_TRY(shape.check(piece));
  const auto index = static_cast<std::size_t>(piece.positions[0] / kBlockTokens);
  if (!open_ && !shape.convolves()) return let_wait(index, piece);
  if (!open_) KVFS_TRY(make_room(piece.positions.back() + 1));  // such a model has no gaps
  KVFS_TRY(check_room(piece.layer, piece.positions));
  const auto positions = static_cast<std::uint32_t>(piece.positions.size());
  if (shape.convolves(piece.layer)) {
    const chunk::ShapeClass inputs{shape.dtype, 1, positions, shape.kind(piece.layer).key_width};
    const Bytes rows = shape.rows_of(piece);
    const Runs place = input_run(piece.layer, static_cast<int>(index), positions);
    KVFS_TRY(
        pool_->transfers().in({chunk::CodecId::kRaw, inputs, rows, place.device, place.bytes()}));
    const int end = piece.positions.back() % kBlockTokens + 1;
    filled(index, piece.layer, 0, shape.kv_heads, static_cast<std::size_t>(end));
    return {};
  }
  const chunk::ShapeClass side{shape.dtype, piece.head_count, positions,
                               static_cast<std::uint16_t>(shape.width)};
  KVFS_TRY(pool_->transfers().in(
      incoming({chunk::CodecId::kRaw, side}, piece.key, piece.layer, 0, index, piece.head_begin)));
  KVFS_TRY(pool_->transfers().in(incoming({chunk::CodecId::kRaw, side}, piece.value, piece.layer, 1,
                                          index, piece.head_begin)));
  filled(index, piece.layer, piece.head_begin, piece.head_count, positions);
  return {};
}

// Of few bytes, and in another order than they lie in a page.
Status DeviceSequence::write_inputs(const chunk::StoredPiece& stored) {
  KvPiece piece{.layer = stored.layer,
                .head_begin = stored.head_begin,
                .head_count = stored.head_count,
                .positions = stored.positions,
                .key = {},
                .value = {},
                .kind = LayerKind::kConvolution};
  if (stored.keys.size() != 1 || !stored.values.empty() ||
      stored.keys[0].shape.byte_size() !=
          pool_->shape().input_bytes(stored.layer, stored.positions.size())) {
    return not_the_models(stored.layer);
  }
  piece.key.resize(stored.keys[0].shape.byte_size());
  KVFS_TRY(chunk::decode(stored.keys[0].codec, stored.keys[0].shape, stored.encoded(stored.keys[0]),
                         piece.key));
  return write(piece);
}

Status DeviceSequence::write(const chunk::StoredPiece& piece) {
  const PageShape& shape = pool_->shape();
  KVFS_TRY(shape.check_place(piece.layer, piece.head_begin, piece.head_count, piece.positions));
  if (!open_) {
    return fail(ErrorCode::kInvalid, "KV of layer " + std::to_string(piece.layer),
                "no room was made for it as it is stored");
  }
  if (shape.convolves(piece.layer)) return write_inputs(piece);
  KVFS_TRY(check_room(piece.layer, piece.positions));
  const auto index = static_cast<std::size_t>(piece.positions[0] / kBlockTokens);
  const int end = piece.head_begin + piece.head_count;
  const auto bring = [&](const std::vector<chunk::StoredChunk>& chunks, int side) -> Status {
    int head = piece.head_begin;
    for (const chunk::StoredChunk& chunk : chunks) {
      if (chunk.shape.dtype != shape.dtype || chunk.shape.width != shape.width ||
          chunk.shape.positions != piece.positions.size() || chunk.shape.heads == 0 ||
          head + chunk.shape.heads > end) {
        return not_the_models(piece.layer);
      }
      KVFS_TRY(pool_->transfers().in(
          incoming(chunk, piece.encoded(chunk), piece.layer, side, index, head)));
      head += chunk.shape.heads;
    }
    return head == end ? Status{} : not_the_models(piece.layer);
  };
  KVFS_TRY(bring(piece.keys, 0));
  KVFS_TRY(bring(piece.values, 1));
  filled(index, piece.layer, piece.head_begin, piece.head_count, piece.positions.size());
  return {};
}

Status DeviceSequence::check_room(int layer, std::span<const Position> positions) const {
  if (static_cast<std::size_t>(positions[0] / kBlockTokens) >= filled_.size()) {
    return fail(ErrorCode::kInvalid, "KV of layer " + std::to_string(layer),
                "it lies outside of the room that was made");
  }
  const auto end = static_cast<std::size_t>(positions.back() % kBlockTokens) + 1;
  if (std::min<std::size_t>(end, pool_->shape().kind(layer).kept) != positions.size()) {
    return fail(ErrorCode::kInvalid, "KV of layer " + std::to_string(layer),
                "positions are missing inside the block", "make room for pieces with gaps");
  }
  return {};
}

Incoming DeviceSequence::incoming(const chunk::StoredChunk& chunk, ByteSpan encoded, int layer,
                                  int side, std::size_t page, int head) const {
  const Runs place = runs(layer, side, static_cast<int>(page), head, 1, 1);
  return {chunk.codec, chunk.shape, encoded, place.device, place.pitch};
}

void DeviceSequence::filled(std::size_t page, int layer, int head, int heads,
                            std::size_t positions) {
  std::fill_n(filled_[page].begin() + layer * pool_->shape().kv_heads + head, heads,
              static_cast<std::int16_t>(positions));
}

// One that comes again takes the place of the one before.
Status DeviceSequence::let_wait(std::size_t block, const KvPiece& piece) {
  std::vector<KvPiece>& pieces = waiting_[block];
  std::erase_if(pieces, [&](const KvPiece& other) {
    return other.layer == piece.layer && other.head_begin == piece.head_begin &&
           other.head_count == piece.head_count;
  });
  for (const KvPiece& other : pieces) {
    if (other.layer == piece.layer && other.head_begin < piece.head_begin + piece.head_count &&
        piece.head_begin < other.head_begin + other.head_count) {
      return fail(ErrorCode::kInvalid, "KV of layer " + std::to_string(piece.layer),
                  "a head came twice");
    }
  }
  pieces.push_back(piece);
  return {};
}

// Every block of which something came, as a page of its own. What a pruned one should hold nobody
// here knows, but that each head holds something somewhere.
Status DeviceSequence::put_waiting(Position next_pos) {
  const PageShape& shape = pool_->shape();
  const std::string what = "set the next position to " + std::to_string(next_pos);
  std::vector<std::shared_ptr<PagePool::Page>> made;
  const auto first = static_cast<std::size_t>(waiting_.begin()->first);
  if (first > pages_.size() || (first < pages_.size() && end_in(first) == kBlockTokens)) {
    return fail(ErrorCode::kInvalid, what, "there are blocks without KV before the first one");
  }
  std::vector<bool> seen(static_cast<std::size_t>(shape.layers * shape.kv_heads), first > 0);
  static const std::vector<KvPiece> kNothing;
  for (std::size_t block = first; block < static_cast<std::size_t>(pages_for(next_pos)); ++block) {
    const auto come = waiting_.find(block);
    const int end = std::min(kBlockTokens, next_pos - static_cast<int>(block) * kBlockTokens);
    KVFS_ASSIGN(made.emplace_back(),
                page_of(*pool_, come == waiting_.end() ? kNothing : come->second, end));
    const SideSlots slots = slots_below(shape, *made.back(), end);
    for (std::size_t side = 0; side < seen.size(); ++side)
      seen[side] = seen[side] || !slots[side].empty();
  }
  if (std::ranges::find(seen, false) != seen.end())
    return fail(ErrorCode::kInvalid, what, "a layer's head has no KV in any block");
  pages_.resize(first);
  for (auto& page : made) pages_.push_back(std::move(page));
  truncate(next_pos);
  return {};
}

Status DeviceSequence::set_next_pos(Position next_pos) {
  if (!waiting_.empty()) return put_waiting(next_pos);
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
  if (!can_go_back(next_pos))
    return fail(ErrorCode::kInvalid, what, "the convolutions' inputs before it are not there");
  coming_ = open_ = false;
  KVFS_TRY(pool_->transfers().wait(ticket_));
  truncate(next_pos);
  return {};
}

std::vector<std::vector<Position>> DeviceSequence::positions(int layer) const {
  const PageShape& shape = pool_->shape();
  std::vector<std::vector<Position>> by_head(static_cast<std::size_t>(shape.kv_heads));
  for (std::size_t page = 0; page < pages_.size(); ++page) {
    const SideSlots slots = slots_below(shape, *pages_[page], end_in(page));
    for (std::size_t head = 0; head < by_head.size(); ++head) {
      for (const std::uint8_t slot : slots[static_cast<std::size_t>(layer) * by_head.size() + head])
        by_head[head].push_back(static_cast<Position>(page) * kBlockTokens + slot);
    }
  }
  return by_head;
}

Status DeviceSequence::prune(const prune::Kept& kept) {
  const PageShape& shape = pool_->shape();
  if (shape.convolves()) {
    return fail(ErrorCode::kUnsupported, "prune a sequence",
                "the model has layers with convolutions, whose state has no entries to drop",
                "prune states of models with attention only");
  }
  std::vector<SideSlots> staying;
  for (std::size_t page = 0; page < pages_.size(); ++page)
    staying.push_back(slots_below(shape, *pages_[page], end_in(page)));
  KVFS_ASSIGN(const std::vector<bool> loses,
              keep_only(kept, static_cast<std::size_t>(shape.layers),
                        static_cast<std::size_t>(shape.kv_heads), staying));
  settle();
  std::vector<std::shared_ptr<PagePool::Page>> pages = pages_;
  for (std::size_t page = 0; page < pages.size(); ++page) {
    if (!loses[page]) continue;
    KVFS_ASSIGN(pages[page], page_of(*pool_, *pages_[page], staying[page], end_in(page)));
  }
  pages_ = std::move(pages);
  return {};
}

Status DeviceSequence::compact(const Places& to, const std::vector<Turning>& turnings) {
  settle();
  KVFS_ASSIGN(auto moved, moved_pages(*pool_, pages_, to, turnings));
  pages_ = std::move(moved);
  truncate(to.next_pos);
  return {};
}

}  // namespace kvfs::model::cuda

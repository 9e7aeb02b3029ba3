#include "engine/model/cpu/kv_pages.h"

#include <algorithm>
#include <cstring>

#include "engine/model/cpu/kernels.h"
#include "engine/model/cpu/page_order.h"

namespace kvfs::model::cpu {
namespace {

constexpr std::uint64_t kKeptBytes = std::uint64_t{64} << 20;
constexpr std::uint64_t kWarmPages = 16;

// That the piece is what the layer keeps of the first positions of a block.
Status check_piece(const PageShape& s, const KvPiece& piece, const std::string& what) {
  const std::size_t count = piece.positions.size();
  const bool known = piece.layer < s.layers.size();
  const LayerShape shape = known ? s.layer(piece.layer) : LayerShape{};
  if (!known || piece.head_count == 0 || piece.head_begin + piece.head_count > shape.kv_heads ||
      count == 0 || count > shape.kept || piece.positions[0] < 0) {
    return fail(ErrorCode::kInvalid, what, "layer, heads or positions outside of the model's");
  }
  if (piece.kind != shape.kind) {
    return fail(ErrorCode::kUnsupported, what, "it is of another kind than the model's layer");
  }
  const std::size_t rows = piece.head_count * count * size_of(s.dtype);
  if (piece.key.size() != rows * shape.key_width ||
      piece.value.size() != rows * shape.value_width) {
    return fail(ErrorCode::kInvalid, what,
                "the bytes are not heads × positions × width of the model's KV type");
  }
  const int end = piece.positions.back() % kPage + 1;
  const Position first = piece.positions.back() - std::min<int>(end, shape.kept) + 1;
  for (std::size_t i = 0; i < count; ++i) {
    if (piece.positions[i] != first + static_cast<Position>(i)) {
      return fail(ErrorCode::kUnsupported, what, "positions are missing inside the block");
    }
  }
  return {};
}

}  // namespace

PageShape::PageShape(const std::vector<LayerShape>& layers_in, int kv_heads_in, int width_in,
                     DType dtype_in)
    : layers(layers_in), kv_heads(kv_heads_in), width(width_in), dtype(dtype_in) {
  for (int i = 0; i < static_cast<int>(layers.size()); ++i) {
    begin.push_back(bytes);
    bytes += convolves(i) ? layer(i).kept * row_bytes(i)
                          : 2 * static_cast<std::size_t>(kv_heads) * side_bytes();
    kept = std::min<int>(kept, layer(i).kept);
  }
}

std::size_t PageShape::side_bytes() const {
  return static_cast<std::size_t>(kPage) * static_cast<std::size_t>(width) * size_of(dtype);
}
std::size_t PageShape::row_bytes(int index) const {
  return layer(index).key_width * size_of(dtype);
}

Page::Page(PagePool& pool) : pool_(pool), data_(pool.take_memory()) {}
Page::~Page() { pool_.give_memory(std::move(data_)); }

const std::uint8_t* Page::side(int layer, int head, int which) const {
  const PageShape& s = pool_.shape_;
  return data_.get() + s.begin[static_cast<std::size_t>(layer)] +
         s.side_bytes() * static_cast<std::size_t>(which * s.kv_heads + head);
}
std::uint8_t* Page::side(int layer, int head, int which) {
  return const_cast<std::uint8_t*>(static_cast<const Page*>(this)->side(layer, head, which));
}

void Page::put(int layer, int head, int slot, const float* key, const float* value) {
  const PageShape& s = pool_.shape_;
  const auto put = s.dtype == DType::kF32 ? put_position<float> : put_position<std::uint16_t>;
  put(side(layer, head, 0), side(layer, head, 1), s.width, slot, key, value);
}

void Page::write(int layer, int head, int count, ByteSpan key, ByteSpan value) {
  const PageShape& s = pool_.shape_;
  const auto write =
      s.dtype == DType::kF32 ? exchange<float, false> : exchange<std::uint16_t, false>;
  write(side(layer, head, 0), side(layer, head, 1), s.width, count,
        const_cast<std::uint8_t*>(key.data()), const_cast<std::uint8_t*>(value.data()));
}

void Page::read(int layer, int head, int count, MutableByteSpan key, MutableByteSpan value) const {
  const PageShape& s = pool_.shape_;
  const auto read = s.dtype == DType::kF32 ? exchange<float, true> : exchange<std::uint16_t, true>;
  read(const_cast<std::uint8_t*>(side(layer, head, 0)),
       const_cast<std::uint8_t*>(side(layer, head, 1)), s.width, count, key.data(), value.data());
}

KvPiece Page::take_out(std::uint16_t layer, Position first, int count) const {
  const PageShape& s = pool_.shape_;
  const LayerShape& shape = s.layer(layer);
  KvPiece piece{.layer = layer, .head_count = shape.kv_heads, .kind = shape.kind};
  const int skipped = std::max(0, count - shape.kept);
  for (int slot = skipped; slot < count; ++slot) piece.positions.push_back(first + slot);
  const std::size_t rows = piece.positions.size() * size_of(s.dtype);
  const std::size_t key_bytes = rows * shape.key_width;
  const std::size_t value_bytes = rows * shape.value_width;
  piece.key.resize(key_bytes * shape.kv_heads);
  piece.value.resize(value_bytes * shape.kv_heads);
  if (s.convolves(layer)) {
    const std::size_t row = s.row_bytes(layer);
    for (int slot = skipped; slot < count; ++slot) {
      std::memcpy(&piece.key[row * static_cast<std::size_t>(slot - skipped)], input(layer, slot),
                  row);
    }
    return piece;
  }
  for (std::size_t head = 0; head < shape.kv_heads; ++head) {
    read(layer, static_cast<int>(head), count,
         MutableByteSpan(piece.key).subspan(head * key_bytes, key_bytes),
         MutableByteSpan(piece.value).subspan(head * value_bytes, value_bytes));
  }
  return piece;
}

const std::uint8_t* Page::input(int layer, int slot) const {
  const PageShape& s = pool_.shape_;
  return data_.get() + s.begin[static_cast<std::size_t>(layer)] +
         s.row_bytes(layer) * static_cast<std::size_t>(slot % s.layer(layer).kept);
}

void Page::copy_from(const Page& other) {
  reached_ = other.reached_;
  std::memcpy(data_.get(), other.data_.get(), pool_.shape_.page_bytes());
}

void PagePool::warm_up(ForkJoin& pool) {
  const std::size_t bytes = shape_.page_bytes();
  const std::size_t count = std::min({kKeptBytes / bytes, budget_ / bytes, kWarmPages});
  while (kept_.size() < count) kept_.push_back(allocate_huge(bytes));
  pool.for_each(static_cast<int>(count), [&](int i, int) {
    std::memset(kept_[static_cast<std::size_t>(i)].get(), 0, bytes);
  });
}

HugeMemory PagePool::take_memory() {
  if (kept_.empty()) kept_.push_back(allocate_huge(shape_.page_bytes()));
  HugeMemory memory = std::move(kept_.back());
  kept_.pop_back();
  used_ += shape_.page_bytes();
  return memory;
}

void PagePool::give_memory(HugeMemory memory) {
  used_ -= shape_.page_bytes();
  if ((kept_.size() + 1) * shape_.page_bytes() <= kKeptBytes) kept_.push_back(std::move(memory));
}

bool PagePool::has_room(std::size_t pages) const {
  return used_ + pages * shape_.page_bytes() <= budget_;
}

Result<std::shared_ptr<Page>> PagePool::make_page() {
  const auto mib = [](std::uint64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; };
  if (!has_room(1)) {
    return fail(ErrorCode::kTooLarge, "memory for attention state",
                mib(used_) + " in use, " + mib(shape_.page_bytes()) +
                    " more wanted, the budget is " + mib(budget_),
                "wait for other jobs or raise the budget");
  }
  try {
    return std::make_shared<Page>(*this);
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kTooLarge, "memory for attention state", "the system has none left");
  }
}

Status PagedSequence::make_own(PagePool& pool, std::size_t index) {
  if (index < pages_.size() && pages_[index].use_count() == 1) return {};
  KVFS_ASSIGN(std::shared_ptr<Page> page, pool.make_page());
  if (index < pages_.size()) {
    page->copy_from(*pages_[index]);
    pages_[index] = std::move(page);
  } else {
    pages_.push_back(std::move(page));
  }
  return {};
}

Status PagedSequence::reserve(PagePool& pool, int count) {
  if (count <= 0) return {};
  const std::size_t before = pages_.size();
  const auto first = static_cast<std::size_t>(next_pos_ / kPage);
  const auto last = static_cast<std::size_t>((next_pos_ + count - 1) / kPage);
  for (std::size_t index = first; index <= last; ++index) {
    if (Status made = make_own(pool, index); !made) {
      pages_.resize(std::min(before, pages_.size()));
      return made;
    }
  }
  for (std::size_t index = first; index <= last; ++index) {
    const Position left = next_pos_ + count - static_cast<Position>(index) * kPage;
    pages_[index]->set_reached(std::min(left, kPage));
  }
  return {};
}

bool PagedSequence::can_go_back(const PageShape& shape, Position end) const {
  // At a page's beginning the one before is whole, and so is what it keeps.
  if (end % kPage == 0) return true;
  const int reached = page(end / kPage).reached();
  return reached <= shape.kept || end % kPage > reached - 2;
}

void PagedSequence::truncate(Position end) {
  next_pos_ = end;
  pages_.resize(std::min(pages_.size(), static_cast<std::size_t>((end + kPage - 1) / kPage)));
  filled_.clear();
}

std::unique_ptr<PagedSequence> PagedSequence::fork() const {
  auto copy = std::make_unique<PagedSequence>();
  copy->pages_ = pages_;
  copy->next_pos_ = next_pos_;
  return copy;
}

Status PagedSequence::make_room(PagePool& pool, Position end) {
  const auto pages = static_cast<std::size_t>((end + kPage - 1) / kPage);
  const auto sides = pool.shape().layers.size() * static_cast<std::size_t>(pool.shape().kv_heads);
  if (filled_.size() < pages) filled_.resize(pages);
  for (auto index = static_cast<std::size_t>(next_pos_ / kPage); index < pages; ++index) {
    KVFS_TRY(make_own(pool, index));
    filled_[index].resize(sides, 0);
    const int count = std::min(kPage, end - static_cast<Position>(index) * kPage);
    pages_[index]->set_reached(std::max(pages_[index]->reached(), count));
  }
  return {};
}

Status PagedSequence::put_in(PagePool& pool, const KvPiece& piece) {
  const PageShape& s = pool.shape();
  const std::string what = "KV of layer " + std::to_string(piece.layer);
  KVFS_TRY(check_piece(s, piece, what));
  const auto index = static_cast<std::size_t>(piece.positions[0] / kPage);
  if (index > pages_.size())
    return fail(ErrorCode::kInvalid, what, "blocks must come in ascending order");
  const int end = piece.positions.back() % kPage + 1;
  const bool has_room = index < pages_.size() && pages_[index].use_count() == 1 &&
                        index < filled_.size() && !filled_[index].empty();
  if (!has_room) KVFS_TRY(make_room(pool, piece.positions.back() + 1));

  Page& page = *pages_[index];
  const auto of_layer = filled_[index].begin() + piece.layer * s.kv_heads;
  const std::size_t count = piece.positions.size();
  if (s.convolves(piece.layer)) {
    const std::size_t row = s.row_bytes(piece.layer);
    for (std::size_t i = 0; i < count; ++i) {
      std::memcpy(page.input(piece.layer, piece.positions[i] % kPage), &piece.key[i * row], row);
    }
    std::fill_n(of_layer, s.kv_heads, static_cast<std::int16_t>(end));
  } else {
    const std::size_t side = piece.key.size() / piece.head_count;
    for (std::size_t h = 0; h < piece.head_count; ++h) {
      const int head = piece.head_begin + static_cast<int>(h);
      page.write(piece.layer, head, end, ByteSpan(piece.key).subspan(h * side, side),
                 ByteSpan(piece.value).subspan(h * side, side));
      of_layer[head] = static_cast<std::int16_t>(end);
    }
  }
  return {};
}

Status PagedSequence::set_next_pos(const PageShape& shape, Position next_pos) {
  const std::string what = "set the next position to " + std::to_string(next_pos);
  if (next_pos < 0 || next_pos > static_cast<Position>(pages_.size()) * kPage) {
    return fail(ErrorCode::kInvalid, what,
                "there is KV for " + std::to_string(pages_.size()) + " blocks only");
  }
  for (std::size_t page = 0; page * kPage < static_cast<std::size_t>(next_pos); ++page) {
    const int needed = std::min(kPage, next_pos - static_cast<int>(page) * kPage);
    const int known = std::clamp(next_pos_ - static_cast<int>(page) * kPage, 0, kPage);
    const bool put = page < filled_.size() && !filled_[page].empty();
    const int least = put ? *std::min_element(filled_[page].begin(), filled_[page].end()) : known;
    if (least < needed && known < needed) {
      return fail(ErrorCode::kInvalid, what,
                  "block " + std::to_string(page) + " lacks KV of some layer or head");
    }
  }
  if (!can_go_back(shape, next_pos)) {
    return fail(ErrorCode::kInvalid, what, "the convolutions' inputs before it are not there");
  }
  truncate(next_pos);
  return {};
}

}  // namespace kvfs::model::cpu

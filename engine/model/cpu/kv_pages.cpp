#include "engine/model/cpu/kv_pages.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <numeric>
#include <utility>

#include "engine/model/cpu/kernels.h"
#include "engine/model/cpu/page_order.h"

namespace kvfs::model::cpu {
namespace {

constexpr std::uint64_t kKeptBytes = std::uint64_t{64} << 20;
constexpr std::uint64_t kWarmPages = 16;

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
Page::Page(PagePool& pool, std::vector<HeadEntries> entries)
    : pool_(pool), entries_(std::move(entries)) {}
Page::~Page() {
  if (data_ != nullptr) pool_.give_memory(std::move(data_));
}

const HeadEntries& Page::entries(int layer, int head) const {
  return entries_[pool_.shape_.side(layer, head)];
}

Page::Head Page::head(int layer, int head) const {
  const PageShape& s = pool_.shape_;
  if (sparse()) {
    const HeadEntries& of = entries(layer, head);
    if (of.store == nullptr) return {{nullptr, nullptr, 0}, 0, 0};
    return {of.store->memory(), of.first, static_cast<int>(of.slots.size())};
  }
  const auto at = static_cast<std::size_t>(head);
  const auto heads = static_cast<std::size_t>(s.kv_heads);
  std::uint8_t* const begin = data_.get() + s.begin[static_cast<std::size_t>(layer)];
  return {{begin + s.side_bytes() * at, begin + s.side_bytes() * (heads + at), kPage}, 0, kPage};
}

int Page::before(int layer, int head, int slot) const {
  return sparse() ? entries(layer, head).before(slot) : std::clamp(slot, 0, kPage);
}

std::vector<std::uint8_t> Page::slots(int layer, int head, int end) const {
  if (!sparse()) {
    std::vector<std::uint8_t> all(static_cast<std::size_t>(end));
    std::iota(all.begin(), all.end(), std::uint8_t{0});
    return all;
  }
  const HeadEntries& of = entries(layer, head);
  return {of.slots.begin(), of.slots.begin() + of.before(end)};
}

void Page::put(int layer, int head, int slot, const float* key, const float* value) {
  const PageShape& s = pool_.shape_;
  const auto put = s.dtype == DType::kF32 ? put_position<float> : put_position<std::uint16_t>;
  const Head to = this->head(layer, head);
  put(to.memory, s.width, to.first + before(layer, head, slot), key, value);
}

Status Page::extend(int begin, int end) {
  const PageShape& s = pool_.shape_;
  for (HeadEntries& of : entries_) {
    const int stay = of.before(begin);
    const int total = stay + end - begin;
    of.slots.resize(static_cast<std::size_t>(stay));
    const bool fits =
        of.store != nullptr && of.store.use_count() == 1 && of.first + total <= of.store->slots();
    if (!fits) {
      KVFS_ASSIGN(std::shared_ptr<HeadStore> store,
                  pool_.make_store((total + kPanel - 1) / kPanel * kPanel));
      const auto copy = s.dtype == DType::kF32 ? copy_slot<float> : copy_slot<std::uint16_t>;
      for (int i = 0; i < stay; ++i)
        copy(of.store->memory(), of.first + i, store->memory(), i, s.width);
      of.first = 0;
      of.store = std::move(store);
    }
    for (int slot = begin; slot < end; ++slot) of.slots.push_back(static_cast<std::uint8_t>(slot));
  }
  return {};
}

namespace {
// Plain rows into slots `first` and on.
void write_rows(const PageShape& s, const HeadMemory& to, int first, int count, ByteSpan key,
                ByteSpan value) {
  const auto write =
      s.dtype == DType::kF32 ? exchange<float, false> : exchange<std::uint16_t, false>;
  write(to, s.width, first, count, const_cast<std::uint8_t*>(key.data()),
        const_cast<std::uint8_t*>(value.data()));
}
}  // namespace

void Page::write(int layer, int head, int count, ByteSpan key, ByteSpan value) {
  write_rows(pool_.shape_, this->head(layer, head).memory, 0, count, key, value);
}

Status Page::replace(int layer, int head, std::vector<std::uint8_t> slots, ByteSpan key,
                     ByteSpan value) {
  const auto count = static_cast<int>(slots.size());
  KVFS_ASSIGN(std::shared_ptr<HeadStore> store, pool_.make_store(count));
  write_rows(pool_.shape_, store->memory(), 0, count, key, value);
  entries_[pool_.shape_.side(layer, head)] = {std::move(slots), 0, std::move(store)};
  return {};
}

std::vector<KvPiece> Page::take_out(std::uint16_t layer, Position first, int count) const {
  const PageShape& s = pool_.shape_;
  if (s.convolves(layer)) return {take_inputs(layer, first, count)};
  const auto read = s.dtype == DType::kF32 ? exchange<float, true> : exchange<std::uint16_t, true>;
  std::vector<KvPiece> pieces;
  for (int begin = 0; begin < s.kv_heads;) {
    const std::vector<std::uint8_t> slots = this->slots(layer, begin, count);
    int end = begin + 1;
    while (end < s.kv_heads && (!sparse() || this->slots(layer, end, count) == slots)) ++end;
    const int heads = end - begin;
    if (!slots.empty()) {
      KvPiece& piece = pieces.emplace_back(KvPiece{.layer = layer, .kind = s.layer(layer).kind});
      piece.head_begin = static_cast<std::uint16_t>(begin);
      piece.head_count = static_cast<std::uint16_t>(heads);
      for (const std::uint8_t slot : slots) piece.positions.push_back(first + slot);
      const std::size_t bytes = slots.size() * static_cast<std::size_t>(s.width) * size_of(s.dtype);
      piece.key.resize(bytes * piece.head_count);
      piece.value.resize(bytes * piece.head_count);
      for (std::size_t i = 0; i < piece.head_count; ++i) {
        const Head from = head(layer, begin + static_cast<int>(i));
        read(from.memory, s.width, from.first, static_cast<int>(slots.size()),
             &piece.key[i * bytes], &piece.value[i * bytes]);
      }
    }
    begin = end;
  }
  return pieces;
}

KvPiece Page::take_inputs(std::uint16_t layer, Position first, int count) const {
  const PageShape& s = pool_.shape_;
  const LayerShape& shape = s.layer(layer);
  KvPiece piece{.layer = layer, .head_count = shape.kv_heads, .kind = shape.kind};
  const int skipped = std::max(0, count - shape.kept);
  const std::size_t row = s.row_bytes(layer);
  piece.key.resize(row * static_cast<std::size_t>(count - skipped));
  for (int slot = skipped; slot < count; ++slot) {
    piece.positions.push_back(first + slot);
    std::memcpy(&piece.key[row * static_cast<std::size_t>(slot - skipped)], input(layer, slot),
                row);
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
  entries_ = other.entries_;
  if (!sparse()) std::memcpy(data_.get(), other.data_.get(), pool_.shape_.page_bytes());
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

Status PagePool::check_room(std::uint64_t bytes) const {
  const auto mib = [](std::uint64_t n) { return std::to_string(n >> 20) + " MiB"; };
  const std::uint64_t used = used_;
  if (used + bytes <= budget_) return {};
  return fail(ErrorCode::kTooLarge, "memory for attention state",
              mib(used) + " in use, " + mib(bytes) + " more wanted, the budget is " + mib(budget_),
              "wait for other jobs or raise the budget");
}

namespace {
template <class Made, class... Args>
Result<std::shared_ptr<Made>> allocate(Args&&... args) {
  try {
    return std::make_shared<Made>(std::forward<Args>(args)...);
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kTooLarge, "memory for attention state", "the system has none left");
  }
}
}  // namespace

Result<std::shared_ptr<Page>> PagePool::make_page() {
  KVFS_TRY(check_room(shape_.page_bytes()));
  return allocate<Page>(*this);
}

std::shared_ptr<Page> PagePool::make_sparse_page() {
  return std::make_shared<Page>(*this, std::vector<HeadEntries>(shape_.sides()));
}

Result<std::shared_ptr<HeadStore>> PagePool::make_store(int slots) {
  KVFS_TRY(check_room(HeadStore::bytes_for(*this, slots)));
  return allocate<HeadStore>(*this, slots);
}

}  // namespace kvfs::model::cpu

// Paged KV in memory: 256 positions of all layers a page, shared between forks, copied on write. Of
// a convolution's layer a page keeps the inputs at the last few of its positions that were
// computed.
//
// A page's inside is laid out for the attention kernels: keys [layer, head, 8, width, 32] (a tile
// of 32 neighbouring keys, dimension by dimension), values [layer, head, width / 32, 256, 32].
// bf16 pages keep each 16 columns in bf16_slot order. take_out() and write() speak the plain
// layout.
//
// Owned by the engine thread, like the model. Pages count their bytes in the pool, which must
// outlive them.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "codec/base/bytes.h"
#include "codec/base/dtype.h"
#include "codec/base/kv.h"
#include "engine/model/cpu/fork_join.h"
#include "engine/model/cpu/huge_memory.h"
#include "engine/model/model.h"

namespace kvfs::model::cpu {

struct PageShape {
  // kv_heads, width: of the layers that attend.
  PageShape(const std::vector<LayerShape>& layers, int kv_heads, int width, DType dtype);

  std::vector<LayerShape> layers;
  int kv_heads;
  int width;
  DType dtype;                     // kBF16 or kF32
  std::vector<std::size_t> begin;  // bytes of a page before each layer
  std::size_t bytes = 0;           // of a page
  int kept = kBlockTokens;         // the fewest positions that a layer keeps of a page

  std::size_t side_bytes() const;          // keys (or values) of one head of one layer
  std::size_t row_bytes(int layer) const;  // a convolution's input at one position
  std::size_t page_bytes() const { return bytes; }
  const LayerShape& layer(int index) const { return layers[static_cast<std::size_t>(index)]; }
  bool convolves(int index) const { return layer(index).kind == LayerKind::kConvolution; }
};

class PagePool;

class Page {
 public:
  explicit Page(PagePool& pool);
  ~Page();
  Page(const Page&) = delete;
  Page& operator=(const Page&) = delete;

  const std::uint8_t* keys(int layer, int head) const { return side(layer, head, 0); }
  const std::uint8_t* values(int layer, int head) const { return side(layer, head, 1); }

  // One position's key and value of one head, fp32, rounded to the page's type. Different positions
  // or heads may be written by different threads at once.
  void put(int layer, int head, int slot, const float* key, const float* value);
  // Plain rows of `count` positions from slot 0 on, [count, width] of the page's type.
  void write(int layer, int head, int count, ByteSpan key, ByteSpan value);
  // What a layer keeps of the page's first `count` positions; first: the position of slot 0. All of
  // them must have been computed, and of a convolution's layer at most one taken back since.
  KvPiece take_out(std::uint16_t layer, Position first, int count) const;

  // A convolution's input at a position, of the page's type. Each takes the place of the one
  // `kept` positions before it.
  const std::uint8_t* input(int layer, int slot) const;
  std::uint8_t* input(int layer, int slot) {
    return const_cast<std::uint8_t*>(static_cast<const Page*>(this)->input(layer, slot));
  }

  void copy_from(const Page& other);
  // Positions from the page's first on that were computed, taken back or not: what decides which
  // inputs are still there.
  int reached() const { return reached_; }
  void set_reached(int count) { reached_ = count; }

 private:
  void read(int layer, int head, int count, MutableByteSpan key, MutableByteSpan value) const;
  const std::uint8_t* side(int layer, int head, int which) const;
  std::uint8_t* side(int layer, int head, int which);

  PagePool& pool_;
  HugeMemory data_;
  int reached_ = 0;
};

// Counts pages against a budget, and keeps the memory of a few that were given back: a question's
// fork needs one or two for a moment, and the system clears what it gives anew.
class PagePool {
 public:
  PagePool(const PageShape& shape, std::uint64_t budget) : shape_(shape), budget_(budget) {}
  const PageShape& shape() const { return shape_; }
  std::uint64_t used() const { return used_; }
  std::uint64_t budget() const { return budget_; }
  bool has_room(std::size_t pages) const;
  // Takes and touches memory for the first pages ahead of need: a restore should not wait for it.
  void warm_up(ForkJoin& pool);
  Result<std::shared_ptr<Page>> make_page();  // kTooLarge

 private:
  friend class Page;
  HugeMemory take_memory();
  void give_memory(HugeMemory memory);

  PageShape shape_;
  std::uint64_t budget_;
  std::uint64_t used_ = 0;
  std::vector<HugeMemory> kept_;  // in nobody's use
};

// Owners of a page: the sequences (forks) whose histories share it.
class PagedSequence final : public Sequence {
 public:
  Position next_pos() const override { return next_pos_; }
  const Page& page(int index) const { return *pages_[static_cast<std::size_t>(index)]; }
  Page& page(int index) { return *pages_[static_cast<std::size_t>(index)]; }
  int pages() const { return static_cast<int>(pages_.size()); }

  // Makes positions next_pos … next_pos + count − 1 writable: new pages, and a copy of a shared
  // partial one. kTooLarge leaves everything as it was.
  Status reserve(PagePool& pool, int count);
  void advance(int count) { next_pos_ += count; }
  void truncate(Position end);
  // Whether truncate(end) leaves what the next token needs: a convolution has forgotten inputs that
  // lie further back than it keeps.
  bool can_go_back(const PageShape& shape, Position end) const;
  std::unique_ptr<PagedSequence> fork() const;

  // Pages of its own up to position end. Pieces before it may then be put in by several threads at
  // once.
  Status make_room(PagePool& pool, Position end);
  Status put_in(PagePool& pool, const KvPiece& piece);
  Status set_next_pos(const PageShape& shape, Position next_pos);

 private:
  Status make_own(PagePool& pool, std::size_t index);  // a page nobody else sees

  std::vector<std::shared_ptr<Page>> pages_;
  Position next_pos_ = 0;
  // Positions that put_in has filled since the last set_next_pos, or that the last of a
  // convolution's lies below: [page][layer · kv_heads + head].
  std::vector<std::vector<std::int16_t>> filled_;
};

}  // namespace kvfs::model::cpu

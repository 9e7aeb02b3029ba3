// Paged KV in memory: 256 positions of all layers a page, on the absolute grid, shared between
// forks. Of a convolution's layer a page keeps the inputs at the last few of its positions that
// were computed.
//
// A page is whole (a slot for each position and head) or sparse: each head of each layer has
// entries at some of the positions, as pruning left them (head_entries.h). What attention gives
// depends on the entries alone, not on which of the two holds them.
//
// Inside, a head's keys lie [tiles, width, 32] (a tile of 32 neighbouring keys, dimension by
// dimension), its values [width / 32, slots, 32]; bf16 keeps each 16 columns in bf16_slot order.
// take_out() and write() speak the plain layout.
//
// Owned by the engine thread, like the model. Pages count their bytes in the pool, which must
// outlive them.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "codec/base/bytes.h"
#include "codec/base/dtype.h"
#include "codec/base/kv.h"
#include "codec/base/result.h"
#include "engine/model/cpu/fork_join.h"
#include "engine/model/cpu/head_entries.h"
#include "engine/model/cpu/huge_memory.h"

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
  // Where a list by layer and KV head has these two.
  std::size_t side(int layer, int head) const {
    return static_cast<std::size_t>(layer * kv_heads + head);
  }
  std::size_t sides() const { return layers.size() * static_cast<std::size_t>(kv_heads); }
};

class PagePool;

class Page {
 public:
  explicit Page(PagePool& pool);                           // whole, uninitialized
  Page(PagePool& pool, std::vector<HeadEntries> entries);  // sparse: by PageShape::side
  ~Page();
  Page(const Page&) = delete;
  Page& operator=(const Page&) = delete;

  bool sparse() const { return !entries_.empty(); }
  // A head's entries and where they lie, one after the other from `first` on.
  struct Head {
    HeadMemory memory;
    int first;
    int count;  // a whole page's: all slots
  };
  Head head(int layer, int head) const;
  // How many of a head's entries lie at slots below this one.
  int before(int layer, int head, int slot) const;
  // The slots of the head's entries below `end`, ascending.
  std::vector<std::uint8_t> slots(int layer, int head, int end) const;

  // One position's key and value of one head, fp32, rounded to the page's type. Different positions
  // or heads may be written by different threads at once. Sparse: after extend().
  void put(int layer, int head, int slot, const float* key, const float* value);
  // Makes every head of a sparse page have the slots begin … end − 1, and none behind. kTooLarge.
  Status extend(int begin, int end);
  // Plain rows of slots [slots, width] of the page's type: of a whole page, 0 … count − 1.
  // Different heads may be written by different threads at once.
  void write(int layer, int head, int count, ByteSpan key, ByteSpan value);
  // The same of a sparse page, in place of what the head had. kTooLarge.
  Status replace(int layer, int head, std::vector<std::uint8_t> slots, ByteSpan key,
                 ByteSpan value);
  // What a layer keeps of the page's first `count` positions; first: the position of slot 0. A
  // piece for each run of heads with the same positions. All of them must have been computed, and
  // of a convolution's layer at most one taken back since.
  std::vector<KvPiece> take_out(std::uint16_t layer, Position first, int count) const;

  // A convolution's input at a position, of the page's type. Each takes the place of the one
  // `kept` positions before it.
  const std::uint8_t* input(int layer, int slot) const;
  std::uint8_t* input(int layer, int slot) {
    return const_cast<std::uint8_t*>(static_cast<const Page*>(this)->input(layer, slot));
  }

  // Of a page of the same kind; a sparse one shares the entries' memory until it is extended.
  void copy_from(const Page& other);
  // Positions from the page's first on that were computed, taken back or not: what decides which
  // inputs are still there.
  int reached() const { return reached_; }
  void set_reached(int count) { reached_ = count; }

 private:
  KvPiece take_inputs(std::uint16_t layer, Position first, int count) const;
  const HeadEntries& entries(int layer, int head) const;

  PagePool& pool_;
  HugeMemory data_{nullptr, nullptr};  // of a whole page
  std::vector<HeadEntries> entries_;   // of a sparse one
  int reached_ = 0;
};

// Counts what pages take against a budget, and keeps the memory of a few whole ones that were given
// back: a question's fork needs one or two for a moment, and the system clears what it gives anew.
// make_store and the end of a store: any thread.
class PagePool {
 public:
  PagePool(const PageShape& shape, std::uint64_t budget) : shape_(shape), budget_(budget) {}
  const PageShape& shape() const { return shape_; }
  std::uint64_t used() const { return used_; }
  std::uint64_t budget() const { return budget_; }
  // Takes and touches memory for the first pages ahead of need: a restore should not wait for it.
  void warm_up(ForkJoin& pool);
  Result<std::shared_ptr<Page>> make_page();                 // kTooLarge
  std::shared_ptr<Page> make_sparse_page();                  // without entries
  Result<std::shared_ptr<HeadStore>> make_store(int slots);  // kTooLarge

 private:
  friend class Page;
  friend class HeadStore;
  Status check_room(std::uint64_t bytes) const;
  HugeMemory take_memory();
  void give_memory(HugeMemory memory);

  PageShape shape_;
  std::uint64_t budget_;
  std::atomic<std::uint64_t> used_ = 0;
  std::vector<HugeMemory> kept_;  // in nobody's use
};

}  // namespace kvfs::model::cpu

// Paged KV on the device: 256 positions of all layers a page, shared between forks, copied on
// write.
//
// A page is as page_shape.h says, zeroed at birth so that places nobody wrote are numbers; or
// sparse (sparse_page.h), once entries were pruned. Engine thread only, but that a page may be let
// go by any. The pool counts bytes and outlives its pages.
#pragma once

#include <ATen/ATen.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "codec/chunk/stored_piece.h"
#include "engine/model/cuda/draw.h"
#include "engine/model/cuda/kernels.h"
#include "engine/model/cuda/page_shape.h"
#include "engine/model/cuda/sparse_page.h"
#include "engine/model/cuda/transfers.h"
#include "engine/model/model.h"
#include "engine/model/places.h"

namespace kvfs::model::cuda {

// What a sparse page holds (sparse_page.h): by side (layer · kv_heads + head), and from slot `tail`
// on every slot.
struct SparseEntries {
  std::vector<std::int32_t> begins;  // [sides + 1]
  std::vector<std::uint8_t> slots;   // by entry
  int tail = 0;
};

class PagePool {
 public:
  PagePool(const PageShape& shape, at::Device device, std::uint64_t budget)
      : shape_(shape), device_(device), budget_(budget), transfers_(device.index()) {}

  struct Page {
    Page(PagePool& pool_in, at::Tensor data_in, std::optional<SparseEntries> sparse_in = {});
    ~Page();
    Page(const Page&) = delete;
    Page& operator=(const Page&) = delete;
    // As a table of pages has it.
    void* address() const {
      return static_cast<std::byte*>(data.data_ptr()) + (sparse ? kSparse : 0);
    }
    PagePool& pool;
    at::Tensor data;  // [page_bytes] uint8, or of a sparse page's size
    std::optional<SparseEntries> sparse;
    // Positions from the page's first on that were computed, taken back or not: what decides which
    // inputs of convolutions are still there.
    int reached = 0;
  };

  const PageShape& shape() const { return shape_; }
  std::uint64_t used() const { return used_; }
  std::uint64_t budget() const { return budget_; }
  Transfers& transfers() { return transfers_; }
  // kTooLarge beyond the budget or when the device itself is full.
  Result<std::shared_ptr<Page>> make();
  Result<std::shared_ptr<Page>> make_sparse(std::size_t bytes, SparseEntries entries);

 private:
  Result<std::shared_ptr<Page>> make(std::int64_t bytes, std::optional<SparseEntries> entries);

  PageShape shape_;
  at::Device device_;
  std::uint64_t budget_;
  std::atomic<std::uint64_t> used_ = 0;
  Transfers transfers_;
};

class DeviceSequence final : public Sequence {
 public:
  explicit DeviceSequence(PagePool& pool) : pool_(&pool) {}
  ~DeviceSequence() override { settle(); }
  DeviceSequence(const DeviceSequence&) = delete;
  DeviceSequence& operator=(const DeviceSequence&) = delete;

  Position next_pos() const override { return next_pos_; }
  const PageShape& shape() const { return pool_->shape(); }
  int pages() const { return static_cast<int>(pages_.size()); }
  void* page_address(int index) const { return pages_[static_cast<std::size_t>(index)]->address(); }
  std::shared_ptr<const PagePool::Page> page(int index) const {  // with who copies it out
    return pages_[static_cast<std::size_t>(index)];
  }

  // Where the generator drew its tokens (DrawStep::drawn), the latest at 0.
  void drew(std::int32_t at) { drawn_at_[drawn_++ % kDrawnSteps] = at; }
  std::int32_t drawn_at(std::size_t back) const {
    return drawn_at_[(drawn_ - 1 - back) % kDrawnSteps];
  }

  // Makes the next `count` positions writable: new pages, and a copy of a shared partial one.
  // kTooLarge leaves everything as it was.
  Status reserve(int count);
  // Of these, `count` will be written now: what a convolution keeps in their place goes.
  void begin_step(int count);
  void advance(int count) { next_pos_ += count; }
  void truncate(Position end);
  // Whether truncate(end) leaves what the next token needs: a convolution has forgotten inputs that
  // lie further back than it keeps.
  bool can_go_back(Position end) const;
  // Whether the last `kept` positions of a block are all there. No: a token was taken back.
  bool keeps(std::int32_t block, int kept) const;
  std::unique_ptr<DeviceSequence> fork() const;

  // Whether some page lacks entries: only kernels.h's attention knows such histories.
  bool pruned() const;
  Result<std::vector<KvPiece>> read(std::uint16_t layer, std::int32_t block) const;
  // Pages for write() up to position end; then, until set_next_pos, write() may be called by any
  // threads at once.
  Status open_room(Position end);
  // Without it, or of pruned KV, pieces wait in memory until set_next_pos knows what there is.
  Status write(const KvPiece& piece);
  Status write(const chunk::StoredPiece& piece);  // after open_room alone
  Status set_next_pos(Position next_pos);

  // A layer's entries, by KV head.
  std::vector<std::vector<Position>> positions(int layer) const;
  // Only these entries stay. Pages that lose none stay shared. After an error all is as it was.
  Status prune(const prune::Kept& kept);
  // Moves the entries there (moved_pages.h). After an error all is as it was.
  Status compact(const Places& to, const std::vector<Turning>& turnings);

 private:
  int end_in(std::size_t index) const;  // slots of a page before next_pos
  Status let_wait(std::size_t block, const KvPiece& piece);
  Status put_waiting(Position next_pos);
  Status make_own(std::size_t index);  // a page nobody else sees
  Status make_room(Position end);
  void settle();  // nothing is on its way to its pages any more
  Result<std::vector<KvPiece>> read_inputs(std::uint16_t layer, std::int32_t block,
                                           int count) const;
  Runs input_run(int layer, int page, std::size_t positions) const;  // from a convolution's row 0
  Status write_inputs(const chunk::StoredPiece& stored);
  Status check_room(int layer, std::span<const Position> positions) const;
  Incoming incoming(const chunk::StoredChunk& chunk, ByteSpan encoded, int layer, int side,
                    std::size_t page, int head) const;
  void filled(std::size_t page, int layer, int head, int heads, std::size_t positions);
  Runs runs(int layer, int side, int page, int head, int heads, std::size_t positions) const;

  PagePool* pool_;
  // Owners of a page: the sequences (forks) whose histories share it.
  std::vector<std::shared_ptr<PagePool::Page>> pages_;
  Position next_pos_ = 0;
  std::array<std::int32_t, kDrawnSteps> drawn_at_{};
  std::size_t drawn_ = 0;
  // Positions that write() has filled since the last set_next_pos: [page][layer · kv_heads + head].
  std::vector<std::vector<std::int16_t>> filled_;
  std::map<std::size_t, std::vector<KvPiece>> waiting_;  // by block
  bool open_ = false;                                    // open_room was called since
  bool coming_ = false;                                  // write() was, or may be
  Transfers::Ticket ticket_ = 0;                         // since then
};

}  // namespace kvfs::model::cuda

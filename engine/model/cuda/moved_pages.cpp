#include "engine/model/cuda/moved_pages.h"

#include <c10/cuda/CUDAStream.h>

#include <algorithm>

#include "engine/model/cuda/looking.h"
#include "engine/model/cuda/sparse_pages.h"

namespace kvfs::model::cuda {
namespace {

using Pages = std::vector<std::shared_ptr<PagePool::Page>>;

cudaStream_t stream() { return c10::cuda::getCurrentCUDAStream(); }

Status done(cudaError_t error) {
  if (error == cudaSuccess) return {};
  return fail(ErrorCode::kIo, "move entries to other positions", cudaGetErrorString(error),
              "restart kvfsd; if it happens again, run with --device cpu");
}

// Slots that a head has in a page of its new positions.
std::vector<std::uint8_t> slots_in(const HeadPlaces& head, Position page_begin) {
  const auto end = head.first + static_cast<Position>(head.from.size());
  std::vector<std::uint8_t> slots;
  for (Position pos = std::max(head.first, page_begin);
       pos < std::min(end, page_begin + kBlockTokens); ++pos)
    slots.push_back(static_cast<std::uint8_t>(pos - page_begin));
  return slots;
}

Result<Pages> room_for(PagePool& pool, const Places& to) {
  Pages made;
  for (Position begin = 0; begin < to.next_pos; begin += kBlockTokens) {
    SideSlots slots;
    for (const auto& layer : to.layers)
      for (const HeadPlaces& head : layer) slots.push_back(slots_in(head, begin));
    KVFS_ASSIGN(made.emplace_back(),
                empty_page(pool, slots, std::min(kBlockTokens, to.next_pos - begin)));
  }
  return made;
}

// A side's entries, cut where they leave a page or come to another one.
void append_runs(const PageShape& shape, std::size_t side, const HeadPlaces& head,
                 const Pages& from, const Pages& to, std::vector<EntryRun>& runs) {
  const std::size_t row = static_cast<std::size_t>(shape.width) * size_of(shape.dtype);
  const auto count = static_cast<Position>(head.from.size());
  Position page_first = 0;  // first entry of the page at hand
  for (Position i = 0, end = 0; i < count; i = end) {
    const Position page = head.from[static_cast<std::size_t>(i)] / kBlockTokens;
    if (i > 0 && head.from[static_cast<std::size_t>(i - 1)] / kBlockTokens != page) page_first = i;
    const Position place = head.first + i;
    const Position to_page = place / kBlockTokens;
    end = i + 1;
    while (end < count && head.from[static_cast<std::size_t>(end)] / kBlockTokens == page &&
           (head.first + end) / kBlockTokens == to_page)
      ++end;
    const EntriesAt here = entries_at(shape, *from[static_cast<std::size_t>(page)], side);
    const EntriesAt there = entries_at(shape, *to[static_cast<std::size_t>(to_page)], side);
    const auto skipped = static_cast<std::size_t>(i - page_first);
    // A page's first entry of a head is at the head's first place, or at the page's first slot.
    const auto before =
        static_cast<std::size_t>(place - std::max(head.first, to_page * kBlockTokens));
    const bool whole = here.slots == nullptr;
    runs.push_back({.keys = here.keys + skipped * row,
                    .values = here.values + skipped * row,
                    .slots = whole ? nullptr : here.slots + skipped,
                    .to_keys = there.keys + before * row,
                    .to_values = there.values + before * row,
                    .from = page * kBlockTokens + (whole ? static_cast<Position>(skipped) : 0),
                    .to = place,
                    .count = end - i});
  }
}

cudaError_t launch(const PageShape& shape, const EntryRun* runs, std::size_t count,
                   const Turning& turning) {
  const auto some = static_cast<int>(count);
  if (shape.dtype == DType::kF32)
    return move_entries<float>(runs, some, turning, shape.width, stream());
  return move_entries<__nv_bfloat16>(runs, some, turning, shape.width, stream());
}

}  // namespace

Result<Pages> moved_pages(PagePool& pool, const Pages& pages, const Places& to,
                          const std::vector<Turning>& turnings) {
  const PageShape& shape = pool.shape();
  KVFS_ASSIGN(Pages made, room_for(pool, to));
  std::vector<EntryRun> runs;
  std::vector<std::size_t> begins{0};  // by layer
  std::size_t side = 0;
  for (const auto& layer : to.layers) {
    for (const HeadPlaces& head : layer) append_runs(shape, side++, head, pages, made, runs);
    begins.push_back(runs.size());
  }
  const std::size_t bytes = runs.size() * sizeof(EntryRun);
  const at::Tensor list =
      at::empty({static_cast<std::int64_t>(bytes)}, made.front()->data.options());
  KVFS_TRY(
      done(cudaMemcpyAsync(list.data_ptr(), runs.data(), bytes, cudaMemcpyHostToDevice, stream())));
  const auto* there = static_cast<const EntryRun*>(list.data_ptr());
  for (std::size_t layer = 0; layer < to.layers.size(); ++layer) {
    KVFS_TRY(done(
        launch(shape, there + begins[layer], begins[layer + 1] - begins[layer], turnings[layer])));
  }
  return made;
}

}  // namespace kvfs::model::cuda

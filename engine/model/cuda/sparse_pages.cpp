#include "engine/model/cuda/sparse_pages.h"

#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/model/cuda/kernels.h"
#include "engine/model/cuda/sparse_page.h"

namespace kvfs::model::cuda {
namespace {

using Page = PagePool::Page;

cudaStream_t stream() { return c10::cuda::getCurrentCUDAStream(); }

Status done(cudaError_t error) {
  if (error == cudaSuccess) return {};
  return fail(ErrorCode::kIo, "rearrange KV on the device", cudaGetErrorString(error),
              "restart kvfsd; if it happens again, run with --device cpu");
}

std::size_t row_bytes(const PageShape& shape) {
  return static_cast<std::size_t>(shape.width) * size_of(shape.dtype);
}
std::size_t sides_of(const PageShape& shape) {
  return static_cast<std::size_t>(shape.layers) * static_cast<std::size_t>(shape.kv_heads);
}
std::size_t rounded_up(std::size_t bytes, std::size_t to) { return (bytes + to - 1) / to * to; }

// What a sparse page begins with, and how large it is.
struct Layout {
  SparseHeader header;
  SparseEntries entries;
  std::size_t bytes;
};

// An entry for each slot from `end` on too.
Layout layout_of(const PageShape& shape, const SideSlots& slots, int end) {
  Layout out{};
  out.entries.begins.push_back(0);
  for (const auto& side : slots) {
    auto& all = out.entries.slots;
    all.insert(all.end(), side.begin(), side.end());
    for (int slot = end; slot < kBlockTokens; ++slot)
      all.push_back(static_cast<std::uint8_t>(slot));
    out.entries.begins.push_back(static_cast<std::int32_t>(all.size()));
  }
  out.entries.tail = end;
  const std::size_t row = row_bytes(shape);
  const std::size_t entries = out.entries.slots.size();
  const std::size_t slots_at =
      sizeof(SparseHeader) + out.entries.begins.size() * sizeof(std::int32_t);
  const std::size_t keys_at = rounded_up(slots_at + entries, row);  // a row's multiple
  out.header = {static_cast<std::int64_t>(slots_at), static_cast<std::int64_t>(keys_at),
                static_cast<std::int64_t>(keys_at + entries * row),
                static_cast<std::int64_t>(entries)};
  out.bytes = keys_at + 2 * entries * row;
  return out;
}

// The page, its list of entries written, keys and values not.
Result<std::shared_ptr<Page>> make_page(PagePool& pool, Layout layout) {
  Bytes head(static_cast<std::size_t>(layout.header.slots) + layout.entries.slots.size());
  std::memcpy(head.data(), &layout.header, sizeof(layout.header));
  std::memcpy(head.data() + sizeof(layout.header), layout.entries.begins.data(),
              layout.entries.begins.size() * sizeof(std::int32_t));
  std::memcpy(head.data() + layout.header.slots, layout.entries.slots.data(),
              layout.entries.slots.size());
  KVFS_ASSIGN(auto page, pool.make_sparse(layout.bytes, std::move(layout.entries)));
  KVFS_TRY(done(cudaMemcpyAsync(page->data.data_ptr(), head.data(), head.size(),
                                cudaMemcpyHostToDevice, stream())));
  return page;
}

const SparseHeader header_of(const PageShape& shape, const Page& page) {
  const std::size_t slots_at =
      sizeof(SparseHeader) + page.sparse->begins.size() * sizeof(std::int32_t);
  const std::size_t entries = page.sparse->slots.size();
  const std::size_t keys_at = rounded_up(slots_at + entries, row_bytes(shape));
  return {static_cast<std::int64_t>(slots_at), static_cast<std::int64_t>(keys_at),
          static_cast<std::int64_t>(keys_at + entries * row_bytes(shape)),
          static_cast<std::int64_t>(entries)};
}

// Where a side's entry at a slot lies, in rows from the page's beginning.
EntrySource source_of(const PageShape& shape, const Page& page, std::size_t side, int slot) {
  if (!page.sparse) {
    const auto heads = static_cast<std::size_t>(shape.kv_heads);
    const std::size_t layer = side / heads;
    const auto key =
        static_cast<std::int64_t>((2 * layer * heads + side % heads) * kBlockTokens) + slot;
    return {key, key + std::int64_t{shape.kv_heads} * kBlockTokens};
  }
  const SparseEntries& entries = *page.sparse;
  const auto begin = entries.slots.begin() + entries.begins[side];
  const auto end = entries.slots.begin() + entries.begins[side + 1];
  const auto at = std::lower_bound(begin, end, static_cast<std::uint8_t>(slot));
  const SparseHeader header = header_of(shape, page);
  const auto row = static_cast<std::int64_t>(row_bytes(shape));
  const std::int64_t entry = at - entries.slots.begin();
  return {header.keys / row + entry, header.values / row + entry};
}

}  // namespace

SideSlots slots_below(const PageShape& shape, const Page& page, int end) {
  SideSlots out(sides_of(shape));
  for (std::size_t side = 0; side < out.size(); ++side) {
    if (!page.sparse) {
      for (int slot = 0; slot < end; ++slot) out[side].push_back(static_cast<std::uint8_t>(slot));
      continue;
    }
    for (std::int32_t i = page.sparse->begins[side]; i < page.sparse->begins[side + 1]; ++i) {
      const std::uint8_t slot = page.sparse->slots[static_cast<std::size_t>(i)];
      if (slot < end) out[side].push_back(slot);
    }
  }
  return out;
}

bool lacks(const SideSlots& slots, int end) {
  return std::ranges::any_of(
      slots, [&](const auto& side) { return side.size() < static_cast<std::size_t>(end); });
}

Result<std::shared_ptr<Page>> empty_page(PagePool& pool, const SideSlots& slots, int end) {
  if (!lacks(slots, end)) return pool.make();
  return make_page(pool, layout_of(pool.shape(), slots, end));
}

EntriesAt entries_at(const PageShape& shape, const Page& page, std::size_t side) {
  auto* base = static_cast<std::byte*>(page.data.data_ptr());
  const std::size_t row = row_bytes(shape);
  if (!page.sparse) {
    const EntrySource at = source_of(shape, page, side, 0);
    return {base + static_cast<std::size_t>(at.key) * row,
            base + static_cast<std::size_t>(at.value) * row, nullptr};
  }
  const SparseHeader header = header_of(shape, page);
  const auto entry = static_cast<std::size_t>(page.sparse->begins[side]);
  return {base + header.keys + entry * row, base + header.values + entry * row,
          reinterpret_cast<const std::uint8_t*>(base + header.slots) + entry};
}

namespace {

// A sparse page that lacks nothing is whole again.
Result<std::shared_ptr<Page>> whole_of(PagePool& pool, const Page& source, int end) {
  const PageShape& shape = pool.shape();
  const std::size_t row = row_bytes(shape);
  KVFS_ASSIGN(auto page, pool.make());
  for (std::size_t side = 0; side < sides_of(shape) && end > 0; ++side) {
    const EntriesAt from = entries_at(shape, source, side);
    const EntriesAt to = entries_at(shape, *page, side);
    for (const auto& [out, in] : {std::pair(to.keys, from.keys), {to.values, from.values}}) {
      KVFS_TRY(done(cudaMemcpyAsync(out, in, static_cast<std::size_t>(end) * row,
                                    cudaMemcpyDeviceToDevice, stream())));
    }
  }
  return page;
}

}  // namespace

Result<std::shared_ptr<Page>> page_of(PagePool& pool, const Page& source, const SideSlots& slots,
                                      int end) {
  const PageShape& shape = pool.shape();
  if (!lacks(slots, end)) return whole_of(pool, source, end);
  Layout layout = layout_of(shape, slots, end);
  const SparseHeader header = layout.header;
  std::vector<EntrySource> from(static_cast<std::size_t>(header.entries));
  for (std::size_t side = 0; side < slots.size(); ++side) {
    auto entry = static_cast<std::size_t>(layout.entries.begins[side]);
    for (const std::uint8_t slot : slots[side])
      from[entry++] = source_of(shape, source, side, slot);
  }
  KVFS_ASSIGN(auto page, make_page(pool, std::move(layout)));
  if (from.empty()) return page;
  const at::Tensor list = at::empty({static_cast<std::int64_t>(from.size() * sizeof(EntrySource))},
                                    page->data.options());
  KVFS_TRY(done(cudaMemcpyAsync(list.data_ptr(), from.data(), from.size() * sizeof(EntrySource),
                                cudaMemcpyHostToDevice, stream())));
  auto* base = static_cast<std::byte*>(page->data.data_ptr());
  KVFS_TRY(done(gather_entries(
      source.data.data_ptr(), static_cast<const EntrySource*>(list.data_ptr()), header.entries,
      static_cast<int>(row_bytes(shape)), base + header.keys, base + header.values, stream())));
  return page;
}

Result<std::shared_ptr<Page>> page_of(PagePool& pool, const std::vector<KvPiece>& pieces, int end) {
  const PageShape& shape = pool.shape();
  const std::size_t row = row_bytes(shape);
  SideSlots slots(sides_of(shape));
  for (const KvPiece& piece : pieces) {
    for (int head = piece.head_begin; head < piece.head_begin + piece.head_count; ++head) {
      auto& side = slots[static_cast<std::size_t>(piece.layer * shape.kv_heads + head)];
      for (const Position pos : piece.positions)
        if (pos % kBlockTokens < end) side.push_back(static_cast<std::uint8_t>(pos % kBlockTokens));
    }
  }
  KVFS_ASSIGN(auto page, empty_page(pool, slots, end));
  for (const KvPiece& piece : pieces) {
    const std::size_t there = piece.positions.size() * row;
    for (int head = 0; head < piece.head_count; ++head) {
      const auto side =
          static_cast<std::size_t>(piece.layer * shape.kv_heads + piece.head_begin + head);
      if (slots[side].empty()) continue;
      const EntriesAt to = entries_at(shape, *page, side);
      const std::size_t bytes = slots[side].size() * row;
      const std::size_t from = static_cast<std::size_t>(head) * there;
      KVFS_TRY(done(cudaMemcpyAsync(to.keys, piece.key.data() + from, bytes, cudaMemcpyHostToDevice,
                                    stream())));
      KVFS_TRY(done(cudaMemcpyAsync(to.values, piece.value.data() + from, bytes,
                                    cudaMemcpyHostToDevice, stream())));
    }
  }
  return page;
}

Result<std::vector<KvPiece>> pieces_of(PagePool& pool, const Page& page, std::uint16_t layer,
                                       Position first, int end) {
  const PageShape& shape = pool.shape();
  const std::size_t row = row_bytes(shape);
  const SparseEntries& entries = *page.sparse;
  const auto side = static_cast<std::size_t>(layer * shape.kv_heads);
  const auto begin = static_cast<std::size_t>(entries.begins[side]);
  const std::size_t count =
      static_cast<std::size_t>(entries.begins[side + static_cast<std::size_t>(shape.kv_heads)]) -
      begin;
  std::vector<KvPiece> pieces;
  if (count == 0) return pieces;
  const SparseHeader header = header_of(shape, page);
  auto* base = static_cast<std::byte*>(page.data.data_ptr());
  Bytes keys(count * row);
  Bytes values(count * row);
  const auto run = [&](std::int64_t at) {
    return Runs{base + static_cast<std::size_t>(at) + begin * row, count * row, count * row, 1};
  };
  KVFS_TRY(pool.transfers().out(run(header.keys), reinterpret_cast<std::byte*>(keys.data()),
                                run(header.values), reinterpret_cast<std::byte*>(values.data()),
                                stream()));
  const SideSlots slots = slots_below(shape, page, end);
  for (int head = 0; head < shape.kv_heads; ++head) {
    const auto& mine = slots[side + static_cast<std::size_t>(head)];
    if (mine.empty()) continue;
    std::vector<Position> positions;
    for (const std::uint8_t slot : mine) positions.push_back(first + slot);
    if (pieces.empty() || pieces.back().positions != positions ||
        pieces.back().head_begin + pieces.back().head_count != head) {
      pieces.push_back({.layer = layer,
                        .head_begin = static_cast<std::uint16_t>(head),
                        .head_count = 0,
                        .positions = std::move(positions),
                        .key = {},
                        .value = {}});
    }
    KvPiece& piece = pieces.back();
    ++piece.head_count;
    const std::size_t at =
        (static_cast<std::size_t>(entries.begins[side + static_cast<std::size_t>(head)]) - begin) *
        row;
    const auto take = [&](const Bytes& all, Bytes& to) {
      const auto from = all.begin() + static_cast<std::ptrdiff_t>(at);
      to.insert(to.end(), from, from + static_cast<std::ptrdiff_t>(mine.size() * row));
    };
    take(keys, piece.key);
    take(values, piece.value);
  }
  return pieces;
}

}  // namespace kvfs::model::cuda

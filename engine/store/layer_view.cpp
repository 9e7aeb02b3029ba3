// kv/layer-NNN.safetensors: head-major rows, each found through its head's run of blocks to a
// chunk. A convolution's layer has one head, whose keys are its inputs.
#include <algorithm>
#include <cstring>
#include <string>

#include "codec/container/safetensors.h"
#include "engine/store/block_views.h"
#include "engine/store/chunk_cache.h"

namespace kvfs::store {
namespace {

constexpr std::size_t kCacheBytes = std::size_t{8} << 20;
constexpr std::size_t kMaxCacheBytes = std::size_t{64} << 20;

enum class Layout { kShared, kOwnPositions, kRagged };

Layout layout_of(const LayerExtent& extent) {
  for (std::uint32_t length : extent.lengths) {
    if (length != extent.lengths.front()) return Layout::kRagged;
  }
  return extent.own_positions ? Layout::kOwnPositions : Layout::kShared;
}

container::SafetensorsHeader convolution_header(const VersionRecord& version, std::size_t layer) {
  const LayerShape& shape = version.layers[layer];
  const LayerExtent& extent = version.extents[layer];
  const std::uint64_t length = extent.lengths.empty() ? 0 : extent.lengths.front();
  container::SafetensorsHeader header;
  header.metadata = {{"format", "pt"},
                     {"kind", "convolution"},
                     {"layer", std::to_string(layer)},
                     {"kept", std::to_string(shape.kept)}};
  header.tensors = {{.name = "conv", .dtype = version.kv_dtype, .shape = {length, shape.key_width}},
                    {.name = "positions", .dtype = DType::kI32, .shape = {length}}};
  return header;
}

container::SafetensorsHeader make_header(const VersionRecord& version, std::size_t layer) {
  const LayerShape& shape = version.layers[layer];
  if (shape.kind == LayerKind::kConvolution) return convolution_header(version, layer);
  const LayerExtent& extent = version.extents[layer];
  const Layout layout = layout_of(extent);
  const std::uint64_t length = extent.lengths.empty() ? 0 : extent.lengths.front();
  std::uint64_t rows = 0;
  for (std::uint32_t n : extent.lengths) rows += n;
  const auto tensor = [&](std::uint64_t width) -> std::vector<std::uint64_t> {
    if (layout == Layout::kRagged) return {rows, width};
    return {1, shape.kv_heads, length, width};
  };
  std::vector<std::uint64_t> positions = {layout == Layout::kRagged ? rows : length};
  if (layout == Layout::kOwnPositions) positions.insert(positions.begin(), shape.kv_heads);

  container::SafetensorsHeader header;
  header.metadata = {{"format", "pt"},
                     {"kind", "full"},
                     {"layer", std::to_string(layer)},
                     {"heads", layout == Layout::kRagged ? "ragged" : "equal"}};
  header.tensors = {
      {.name = "key", .dtype = version.kv_dtype, .shape = tensor(shape.key_width)},
      {.name = "value", .dtype = version.kv_dtype, .shape = tensor(shape.value_width)},
      {.name = "positions", .dtype = DType::kI32, .shape = std::move(positions)}};
  if (layout == Layout::kRagged) {
    header.tensors.push_back(
        {.name = "head_offsets", .dtype = DType::kI32, .shape = {shape.kv_heads + 1ULL}});
  }
  return header;
}

// Where the rows of a layer lie: for each head, its segments and the row each begins at.
class LayerIndex {
 public:
  struct Run {
    std::uint32_t begin;  // row within the head
    std::size_t segment;
  };

  static Result<LayerIndex> load(Store& store, const VersionRecord& version, std::uint16_t layer) {
    LayerIndex index;
    index.runs_.resize(version.layers[layer].kv_heads);
    std::vector<std::uint32_t> lengths(index.runs_.size());
    for (BlockId id : version.blocks) {
      KVFS_ASSIGN(BlockRecord block, store.block(id));
      for (Segment& segment : block.segments) {
        if (segment.layer != layer) continue;
        const auto rows = static_cast<std::uint32_t>(segment.positions.size());
        for (std::size_t i = 0; i < segment.head_count; ++i) {
          const std::size_t head = segment.head_begin + i;
          if (head >= lengths.size()) return mismatch();
          index.runs_[head].push_back({lengths[head], index.segments_.size()});
          lengths[head] += rows;
        }
        index.segments_.push_back(std::move(segment));
      }
    }
    if (lengths != version.extents[layer].lengths) return mismatch();
    return index;
  }

  // The run that holds a row of a head.
  const Run& find(std::size_t head, std::uint32_t row) const {
    const auto& runs = runs_[head];
    return *(std::upper_bound(runs.begin(), runs.end(), row,
                              [](std::uint32_t r, const Run& run) { return r < run.begin; }) -
             1);
  }
  const Segment& segment(const Run& run) const { return segments_[run.segment]; }

 private:
  static tl::unexpected<Error> mismatch() {
    return fail(ErrorCode::kCorrupt, "read a version", "its blocks do not add up to its lengths",
                "run kvfsd --check");
  }
  std::vector<Segment> segments_;
  std::vector<std::vector<Run>> runs_;  // by head, ascending
};

// Enough that a whole read, head after head, decodes each chunk once, within reason: a chunk holds
// several heads, and comes again for each of them.
std::size_t cache_bytes(const VersionRecord& version) {
  return std::clamp(version.blocks.size() * std::size_t{131'072}, kCacheBytes, kMaxCacheBytes);
}

class LayerView final : public FileView {
 public:
  LayerView(Store& store, const VersionRecord& version, std::uint16_t layer)
      : store_(store),
        version_(version),
        layer_(layer),
        header_(make_header(version, layer)),
        front_(container::make_safetensors_header(header_)),
        cache_(cache_bytes(version)) {
    starts_.push_back(0);
    for (std::uint32_t length : version.extents[layer].lengths) {
      starts_.push_back(starts_.back() + length);
    }
  }

  std::uint64_t size() const override { return front_.size() + header_.tensors.back().end; }

  Result<std::size_t> read(std::uint64_t offset, MutableByteSpan out) override {
    if (offset >= size()) return 0;
    const std::size_t n = std::min<std::uint64_t>(out.size(), size() - offset);
    out = out.first(n);
    copy_overlap(0, front_, offset, out);
    KVFS_TRY(load_index());
    for (const container::TensorEntry& tensor : header_.tensors) {
      const std::uint64_t begin = front_.size() + tensor.begin, end = front_.size() + tensor.end;
      const std::uint64_t from = std::max(begin, offset), to = std::min(end, offset + n);
      if (from >= to) continue;
      KVFS_TRY(read_tensor(tensor.name, from - begin, out.subspan(from - offset, to - from)));
    }
    return n;
  }

 private:
  Status load_index() {
    std::lock_guard lock(mutex_);
    if (index_) return {};
    KVFS_ASSIGN(index_, LayerIndex::load(store_, version_, layer_));
    return {};
  }

  Status read_tensor(std::string_view name, std::uint64_t offset, MutableByteSpan out) {
    const LayerShape& shape = version_.layers[layer_];
    const std::size_t element = size_of(version_.kv_dtype);
    if (name == "key" || name == "conv") {
      return read_rows(offset, out, shape.key_width * element, &LayerView::keys);
    }
    if (name == "value") {
      return read_rows(offset, out, shape.value_width * element, &LayerView::values);
    }
    if (name == "positions") {
      return read_rows(offset, out, sizeof(Position), &LayerView::positions);
    }
    ByteWriter offsets;
    for (std::uint64_t start : starts_) offsets.number(static_cast<std::int32_t>(start));
    copy_overlap(0, offsets.bytes(), offset, out);
    return {};
  }

  // Copies from the rows of a segment's head, beginning `skip` bytes into them; returns the bytes
  // copied.
  using Source = Result<std::size_t> (LayerView::*)(const Segment&, std::size_t head,
                                                    std::size_t skip, MutableByteSpan out);

  Status read_rows(std::uint64_t offset, MutableByteSpan out, std::size_t row_bytes,
                   Source source) {
    while (!out.empty()) {
      const std::uint64_t row = offset / row_bytes;
      const auto next = std::upper_bound(starts_.begin(), starts_.end(), row);
      const auto head = static_cast<std::size_t>(next - starts_.begin() - 1);
      const auto local = static_cast<std::uint32_t>(row - starts_[head]);
      const LayerIndex::Run& run = index_->find(head, local);
      const Segment& segment = index_->segment(run);
      const std::size_t skip = (local - run.begin) * row_bytes + offset % row_bytes;
      KVFS_ASSIGN(const std::size_t n,
                  (this->*source)(segment, head - segment.head_begin, skip, out));
      out = out.subspan(n);
      offset += n;
    }
    return {};
  }

  Result<std::size_t> keys(const Segment& segment, std::size_t head, std::size_t skip,
                           MutableByteSpan out) {
    return copy_chunk(segment.key_shape, segment.key_chunks, head, skip, out);
  }
  Result<std::size_t> values(const Segment& segment, std::size_t head, std::size_t skip,
                             MutableByteSpan out) {
    return copy_chunk(segment.value_shape, segment.value_chunks, head, skip, out);
  }
  Result<std::size_t> positions(const Segment& segment, std::size_t, std::size_t skip,
                                MutableByteSpan out) {
    const std::size_t n = std::min(out.size(), segment.positions.size() * sizeof(Position) - skip);
    std::memcpy(out.data(), reinterpret_cast<const char*>(segment.positions.data()) + skip, n);
    return n;
  }

  Result<std::size_t> copy_chunk(const chunk::ShapeClass& shape, const std::vector<ChunkId>& chunks,
                                 std::size_t head, std::size_t skip, MutableByteSpan out) {
    KVFS_ASSIGN(const ChunkCache::Chunk chunk, decoded(chunks[head / shape.heads], shape));
    const std::size_t head_bytes = chunk->size() / shape.heads;
    const std::size_t n = std::min(out.size(), head_bytes - skip);
    std::memcpy(out.data(), chunk->data() + (head % shape.heads) * head_bytes + skip, n);
    return n;
  }

  // Two readers may decode one chunk at once: better than one waiting under the lock.
  Result<ChunkCache::Chunk> decoded(const ChunkId& id, const chunk::ShapeClass& shape) {
    if (ChunkCache::Chunk chunk = cache_.find(id)) return chunk;
    Bytes bytes(shape.byte_size());
    KVFS_TRY(store_.read_chunk(id, shape, bytes));
    auto chunk = std::make_shared<const Bytes>(std::move(bytes));
    cache_.insert(id, chunk);
    return chunk;
  }

  Store& store_;
  const VersionRecord version_;
  const std::uint16_t layer_;
  container::SafetensorsHeader header_;
  const Bytes front_;
  std::vector<std::uint64_t> starts_;  // first row of each head, and the end
  ChunkCache cache_;
  std::mutex mutex_;
  std::optional<LayerIndex> index_;  // guarded by mutex_ until set
};

}  // namespace

container::SafetensorsHeader layer_header(const VersionRecord& version, std::uint16_t layer) {
  container::SafetensorsHeader header = make_header(version, layer);
  container::make_safetensors_header(header);
  return header;
}

Result<std::unique_ptr<FileView>> layer_view(Store& store, const VersionRecord& version,
                                             std::uint16_t layer) {
  if (layer >= version.layers.size()) {
    return fail(ErrorCode::kNotFound, "layer " + std::to_string(layer),
                "the model has " + std::to_string(version.layers.size()) + " layers");
  }
  return std::make_unique<LayerView>(store, version, layer);
}

}  // namespace kvfs::store

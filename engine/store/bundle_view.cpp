// Bundles as views: tensors are ranges of the layers' files, the rest is made when first read.
#include <algorithm>
#include <list>
#include <mutex>
#include <numeric>
#include <optional>
#include <utility>

#include "codec/container/safetensors.h"
#include "codec/container/state_bundle.h"
#include "engine/store/archive.h"
#include "engine/store/block_views.h"
#include "engine/store/bundles.h"

namespace kvfs::store {
namespace {

constexpr std::size_t kOpenLayers = 3;  // each keeps decoded chunks

// The files of a version's layers, the ones read last kept open. Any thread.
class LayerFiles {
 public:
  LayerFiles(Store& store, const VersionRecord& version) : store_(store), version_(version) {}

  // Of the data behind the header of the layer's file.
  Status read(std::uint16_t layer, std::uint64_t offset, MutableByteSpan out) {
    KVFS_ASSIGN(const auto file, open(layer));
    KVFS_ASSIGN(const std::size_t got,
                file->read(layer_header(version_, layer).data_offset + offset, out));
    if (got == out.size()) return {};
    return fail(ErrorCode::kInternal, "reading a bundle", "a layer's file ends too soon");
  }

 private:
  // Shared by this list and by who reads it.
  Result<std::shared_ptr<FileView>> open(std::uint16_t layer) {
    const std::lock_guard lock(mutex_);
    const auto it = std::ranges::find(open_, layer, &Open::first);
    if (it != open_.end()) {
      open_.splice(open_.begin(), open_, it);
      return it->second;
    }
    KVFS_ASSIGN(std::shared_ptr<FileView> file, layer_view(store_, version_, layer));
    open_.emplace_front(layer, file);
    if (open_.size() > kOpenLayers) open_.pop_back();
    return file;
  }

  using Open = std::pair<std::uint16_t, std::shared_ptr<FileView>>;
  Store& store_;
  const VersionRecord& version_;  // its owner's
  std::mutex mutex_;              // guards open_
  std::list<Open> open_;          // used last first
};

// .pt, .pkl, .npz.
class PairsView final : public FileView {
 public:
  static Result<std::unique_ptr<FileView>> make(Store& store, const VersionRecord& version,
                                                container::BundleForm form) {
    auto out = std::unique_ptr<PairsView>(new PairsView(store, version, form));
    container::BundleSpec& spec = out->spec_;
    KVFS_ASSIGN(spec.state, bundle_facts(store, version));
    spec.dtype = version.kv_dtype;
    spec.tokens.resize(version.n_tokens);
    const auto all = static_cast<std::uint32_t>(version.next_pos);
    bool whole = true;
    for (std::size_t i = 0; i < version.layers.size(); ++i) {
      const LayerShape& shape = version.layers[i];
      const LayerExtent& extent = version.extents[i];
      const std::uint32_t length = extent.lengths.front();
      spec.layers.push_back({shape.kv_heads, length, shape.key_width, shape.value_width});
      spec.positions.emplace_back(extent.own_positions ? std::size_t{length} * shape.kv_heads
                                                       : length);
      whole = whole && length == all;
    }
    if (whole) {
      spec.positions.resize(1);
      std::iota(spec.positions[0].begin(), spec.positions[0].end(), 0);
    }
    KVFS_ASSIGN(const auto laid_out, container::StateBundle::make(spec, form));
    out->size_ = laid_out.size();
    return out;
  }

  std::uint64_t size() const override { return size_; }

  Result<std::size_t> read(std::uint64_t offset, MutableByteSpan out) override {
    KVFS_TRY(fill());
    return bundle_->read(
        offset, out,
        [this](std::size_t layer, container::KvHalf half, std::uint64_t at, MutableByteSpan part) {
          const auto header = layer_header(version_, static_cast<std::uint16_t>(layer));
          const std::size_t tensor = half == container::KvHalf::kKey ? 0 : 1;
          return layers_.read(static_cast<std::uint16_t>(layer), header.tensors[tensor].begin + at,
                              part);
        });
  }

 private:
  PairsView(Store& store, const VersionRecord& version, container::BundleForm form)
      : store_(store), version_(version), form_(form), layers_(store, version_) {}

  // What the size does not depend on.
  Status fill() {
    const std::lock_guard lock(mutex_);
    if (bundle_) return {};
    KVFS_ASSIGN(const auto tokens, tokens_of(store_, version_));
    std::ranges::transform(tokens, spec_.tokens.begin(), &BlockToken::token);
    for (std::size_t i = 0; spec_.positions.size() > 1 && i < spec_.positions.size(); ++i) {
      const auto layer = static_cast<std::uint16_t>(i);
      std::vector<Position>& positions = spec_.positions[i];
      const MutableByteSpan bytes(reinterpret_cast<std::uint8_t*>(positions.data()),
                                  positions.size() * sizeof(Position));
      KVFS_TRY(layers_.read(layer, layer_header(version_, layer).tensors[2].begin, bytes));
    }
    KVFS_ASSIGN(bundle_, container::StateBundle::make(spec_, form_));
    return {};
  }

  Store& store_;
  const VersionRecord version_;
  const container::BundleForm form_;
  LayerFiles layers_;
  std::uint64_t size_ = 0;
  std::mutex mutex_;  // guards the rest until bundle_ is set
  container::BundleSpec spec_;
  std::optional<container::StateBundle> bundle_;
};

class SafetensorsView final : public FileView {
 public:
  static Result<std::unique_ptr<FileView>> make(Store& store, const VersionRecord& version) {
    auto out = std::unique_ptr<SafetensorsView>(new SafetensorsView(store, version));
    container::SafetensorsHeader header;
    KVFS_ASSIGN(header.metadata, bundle_facts(store, version));
    header.tensors.push_back(
        {.name = "input_ids", .dtype = DType::kI64, .shape = {1, version.n_tokens}});
    std::vector<std::size_t> firsts;  // of the layers' tensors
    for (std::size_t i = 0; i < version.layers.size(); ++i) {
      firsts.push_back(header.tensors.size());
      auto layer = layer_header(version, static_cast<std::uint16_t>(i));
      for (container::TensorEntry& tensor : layer.tensors) {
        tensor.name.insert(0, "layers." + std::to_string(i) + ".");
        header.tensors.push_back(std::move(tensor));
      }
    }
    out->front_ = make_safetensors_header(header);
    for (const std::size_t first : firsts) {
      out->begins_.push_back(header.data_offset + header.tensors[first].begin);
    }
    out->begins_.push_back(header.data_offset + header.tensors.back().end);
    return out;
  }

  std::uint64_t size() const override { return begins_.back(); }

  Result<std::size_t> read(std::uint64_t offset, MutableByteSpan out) override {
    if (offset >= size()) return 0;
    const std::size_t n = std::min<std::uint64_t>(out.size(), size() - offset);
    out = out.first(n);
    copy_overlap(0, front_, offset, out);
    if (offset < begins_.front() && offset + n > front_.size()) {
      KVFS_ASSIGN(const auto tokens, tokens_of(store_, version_));
      ByteWriter ids;
      for (const BlockToken& token : tokens) ids.number(std::int64_t{token.token});
      copy_overlap(front_.size(), ids.bytes(), offset, out);
    }
    for (std::size_t i = 0; i + 1 < begins_.size(); ++i) {
      const std::uint64_t from = std::max(begins_[i], offset);
      const std::uint64_t to = std::min(begins_[i + 1], offset + n);
      if (from >= to) continue;
      KVFS_TRY(layers_.read(static_cast<std::uint16_t>(i), from - begins_[i],
                            out.subspan(from - offset, to - from)));
    }
    return n;
  }

 private:
  SafetensorsView(Store& store, const VersionRecord& version)
      : store_(store), version_(version), layers_(store, version_) {}

  Store& store_;
  const VersionRecord version_;
  LayerFiles layers_;
  Bytes front_;
  std::vector<std::uint64_t> begins_;  // of the layers' data, and the end
};

}  // namespace

Result<std::unique_ptr<FileView>> bundle_view(Store& store, const VersionRecord& version,
                                              DataPart part) {
  if (part == DataPart::kBundleSafetensors) return SafetensorsView::make(store, version);
  if (part == DataPart::kBundleKvfs) return archive_view(store, version);
  if (!fits_pt(version)) {
    return fail(
        ErrorCode::kUnsupported, "a .pt, .pkl or .npz file of the state",
        "its heads hold different numbers of positions, or a layer keeps no keys and values",
        "take its .safetensors or .kvfs");
  }
  return PairsView::make(store, version,
                         part == DataPart::kBundlePkl   ? container::BundleForm::kPkl
                         : part == DataPart::kBundleNpz ? container::BundleForm::kNpz
                                                        : container::BundleForm::kPt);
}

}  // namespace kvfs::store

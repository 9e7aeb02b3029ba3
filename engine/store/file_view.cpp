// Users' files, read past whoever has them open.
#include <algorithm>
#include <cstring>

#include "engine/store/bundles.h"

namespace kvfs::store {
namespace {

class NodeView final : public FileView {
 public:
  NodeView(Store& store, FileId id, FileNode node, std::unique_ptr<FileView> source)
      : store_(store), id_(id), node_(std::move(node)), source_(std::move(source)) {}

  std::uint64_t size() const override { return node_.size; }

  Result<std::size_t> read(std::uint64_t offset, MutableByteSpan out) override {
    if (offset >= node_.size) return 0;
    const std::size_t n = std::min<std::uint64_t>(out.size(), node_.size - offset);
    for (std::size_t done = 0; done < n;) {
      const std::uint64_t at = offset + done;
      const std::size_t skip = at % kPieceBytes;
      const MutableByteSpan part =
          out.subspan(done, std::min<std::size_t>(n - done, kPieceBytes - skip));
      KVFS_TRY(read_part(at, skip, part));
      done += part.size();
    }
    return n;
  }

 private:
  // Within one piece.
  Status read_part(std::uint64_t at, std::size_t skip, MutableByteSpan part) {
    std::ranges::fill(part, std::uint8_t{0});
    KVFS_ASSIGN(const auto piece, store_.piece(id_, at / kPieceBytes));
    if (piece) {
      if (skip < piece->size()) {
        std::memcpy(part.data(), piece->data() + skip, std::min(part.size(), piece->size() - skip));
      }
      return {};
    }
    if (!source_ || at >= node_.source_bytes) return {};
    KVFS_TRY(source_->read(
        at, part.first(std::min<std::uint64_t>(part.size(), node_.source_bytes - at))));
    return {};
  }

  Store& store_;
  const FileId id_;
  const FileNode node_;
  const std::unique_ptr<FileView> source_;
};

}  // namespace

Result<std::unique_ptr<FileView>> part_view(Store& store, const VersionRecord& version,
                                            DataPart part) {
  switch (part) {
    case DataPart::kStateJson:
      return state_json_view(store, version);
    case DataPart::kText:
      return text_view(store, version);
    case DataPart::kTokens:
      return tokens_view(store, version);
    case DataPart::kBundlePt:
    case DataPart::kBundleSafetensors:
    case DataPart::kBundlePkl:
    case DataPart::kBundleNpz:
    case DataPart::kBundleKvfs:
      return bundle_view(store, version, part);
    case DataPart::kFirstLayer:
      break;
  }
  if (part < DataPart::kFirstLayer) {
    return fail(ErrorCode::kNotFound, "a version's file", "there is none of that number");
  }
  return layer_view(store, version,
                    static_cast<std::uint16_t>(static_cast<std::uint16_t>(part) -
                                               static_cast<std::uint16_t>(DataPart::kFirstLayer)));
}

Result<std::unique_ptr<FileView>> node_view(Store& store, FileId id) {
  KVFS_ASSIGN(FileNode node, store.node(id));
  std::unique_ptr<FileView> source;
  if (node.source) {
    KVFS_ASSIGN(const VersionRecord version, store.version(node.source));
    KVFS_ASSIGN(source, part_view(store, version, node.source_part));
  }
  return std::make_unique<NodeView>(store, id, std::move(node), std::move(source));
}

}  // namespace kvfs::store

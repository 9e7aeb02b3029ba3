// The files of a state as views on an immutable version: exact size at once, bytes at any offset,
// nothing built beforehand. The bytes depend on the version's content alone: no times, no names.
//
// A view may be used by many threads at once; it keeps only immutable metadata and a small cache of
// decoded chunks behind one lock. The Store must outlive it; the version must be held or current.
#pragma once

#include <cstdint>
#include <memory>

#include "codec/container/safetensors.h"
#include "engine/store/store.h"

namespace kvfs::store {

class FileView {
 public:
  virtual ~FileView() = default;
  virtual std::uint64_t size() const = 0;
  // Fills out from offset; returns the bytes read, fewer only at the end of the file.
  virtual Result<std::size_t> read(std::uint64_t offset, MutableByteSpan out) = 0;
};

// state.json: format version, model name and fingerprint, kernel class, n_tokens, next_pos, layers
// [{"length": n}] or [{"lengths": [per head]}], dtype, codec, origin, root. A convolution's layer
// says {"length": rows, "kind": "convolution", "kept": rows a full block, "channels": n}.
Result<std::unique_ptr<FileView>> state_json_view(Store& store, const VersionRecord& version);
// text: the tokens' bytes.
Result<std::unique_ptr<FileView>> text_view(Store& store, const VersionRecord& version);
// tokens.npy: int32 [n_tokens].
Result<std::unique_ptr<FileView>> tokens_view(Store& store, const VersionRecord& version);
// kv/layer-NNN.safetensors: key, value [1, kv_heads, T, width], positions [T] (int32), or
// [kv_heads, T] where heads differ; ragged heads: key, value [N, width], positions [N],
// head_offsets [kv_heads + 1]. Of a convolution's layer: conv [T, channels], its inputs at the last
// positions of each block, oldest first, and positions [T].
Result<std::unique_ptr<FileView>> layer_view(Store& store, const VersionRecord& version,
                                             std::uint16_t layer);

// What that file begins with; tensors' places count from data_offset.
container::SafetensorsHeader layer_header(const VersionRecord& version, std::uint16_t layer);

// The file of that part.
Result<std::unique_ptr<FileView>> part_view(Store& store, const VersionRecord& version,
                                            DataPart part);
// A user's file as it is on disk now: its pieces, its source where it has none, zeros.
Result<std::unique_ptr<FileView>> node_view(Store& store, FileId id);

// What keeps a version's files readable, though it be dropped. kNotFound: it was, and some of its
// blocks are gone already.
Result<std::vector<BlockPin>> pin_blocks(Store& store, const VersionRecord& version);

// The state's tokens, in order.
Result<std::vector<BlockToken>> tokens_of(Store& store, const VersionRecord& version);

}  // namespace kvfs::store

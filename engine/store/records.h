// The store's records: what LMDB holds, as plain data. Byte layouts: docs/FORMAT.md, layouts.cpp.
//
// chunk ← segment ← block ← version ← state. A segment is one layer's KV at one block's positions
// for a run of heads, so layers and heads may differ in length; a block is up to 256 positions on
// the absolute grid; a version is what a state knew at one commit and never changes.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "codec/base/bytes.h"
#include "codec/base/ids.h"
#include "codec/base/kv.h"
#include "codec/chunk/codec.h"

namespace kvfs::store {

using PieceId = Digest128<struct PieceTag>;  // XXH3-128 of a file piece's bytes

struct Segment {
  std::uint16_t layer = 0;
  std::uint16_t head_begin = 0;
  std::uint16_t head_count = 0;
  LayerKind kind = LayerKind::kFull;
  std::vector<Position> positions;  // ascending; stored as a run when they are one
  chunk::ShapeClass key_shape;      // of one chunk: its heads × key_chunks are head_count
  chunk::ShapeClass value_shape;
  std::vector<ChunkId> key_chunks;    // equal slices by heads, usually one
  std::vector<ChunkId> value_chunks;  // none where a value has no width
  ContentDigest digest;               // over its heads' digests, see digests.h
};

struct BlockToken {
  TokenId token = -1;
  Position position = 0;
  TokenPath path = TokenPath::kRead;
  bool operator==(const BlockToken&) const = default;
};

struct BlockRecord {
  std::uint32_t references = 0;    // versions that list it; kept in a table of its own
  std::int32_t index = 0;          // positions index·256 … index·256 + 255
  std::vector<BlockToken> tokens;  // what was read or generated here, kept or pruned
  std::string text;                // the tokens' bytes, one after the other
  std::vector<Segment> segments;   // layer-major
  BlockKey previous_key;           // of the block before; zero for the first
  BlockKey key;                    // zero: never in the prefix index
  ContentDigest digest;            // over tokens and heads' digests, see digests.h
};

std::uint64_t decoded_bytes(const BlockRecord& block);  // of its KV

// What stands at the front of a block's record, to be had without reading the rest.
struct BlockSummary {
  std::int32_t index = 0;
  std::uint32_t token_count = 0;
  std::uint32_t text_bytes = 0;
  std::uint64_t kv_bytes = 0;  // decoded
  ContentDigest digest;
  std::uint32_t heads = 0;  // (layer, head) pairs that hold something here
  // Positions that each of them holds, when they all hold the same ones.
  std::optional<std::uint32_t> length;
};

// How much a layer holds, over all blocks.
struct LayerExtent {
  bool own_positions = false;          // heads hold different positions
  std::vector<std::uint32_t> lengths;  // positions, one number a head
  bool operator==(const LayerExtent&) const = default;
};

// On disk: never renumber.
enum class Origin : std::uint8_t {
  kComputed = 0,
  kImported = 1,
  kEdited = 2,
  kPruned = 3,
  kLossy = 4
};
std::string_view name_of(Origin origin);

struct VersionRecord {
  std::uint32_t references = 0;  // states, snapshots and unfinished jobs that hold it
  std::string model;             // name
  ModelFingerprint fingerprint;
  std::string kernel_class;
  DType kv_dtype = DType::kBF16;
  chunk::CodecId codec = chunk::CodecId::kZh;
  Origin origin = Origin::kComputed;
  std::string origin_detail;  // JSON object: method, parameters, parent root; "" when computed
  std::uint64_t n_tokens = 0;
  Position next_pos = 0;  // position of the next token; not the cache's length
  std::vector<LayerShape> layers;
  std::vector<LayerExtent> extents;  // one a layer
  std::vector<BlockId> blocks;       // ascending index
  std::uint64_t text_bytes = 0;
  std::uint64_t kv_bytes = 0;  // decoded
  ContentDigest root;          // over blocks' digests, fingerprint and shapes, see digests.h
};

// Some layer that keeps every position lacks some, as pruning leaves it.
bool has_gaps(const VersionRecord& version);

struct StateRecord {
  StateId parent;  // none: directly under states/
  std::string name;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t mode = 0700;                  // permission bits
  std::int64_t created_ns = 0;                // since the epoch
  std::int64_t changed_ns = 0;                // of params, names inside
  std::int64_t advanced_ns = 0;               // of the current version
  VersionId version;                          // none: an empty state
  std::map<std::string, std::string> params;  // those set here; the rest are defaults
  bool snapshot = false;  // of its parent, under a name of its own there; read-only
  bool pinned = false;    // it cannot be removed
};

// On disk: never renumber.
enum class JobKind : std::uint8_t { kFeed = 0, kContinue = 1, kAsk = 2, kStep = 3, kPrune = 4 };
enum class JobStatus : std::uint8_t {
  kQueued = 0,
  kRunning = 1,
  kDone = 2,
  kFailed = 3,
  kCanceled = 4
};
std::string_view name_of(JobKind kind);      // "feed", …
std::string_view name_of(JobStatus status);  // "queued", …

// Milliseconds of a job, by what it spent them on.
struct JobTimes {
  std::uint32_t queued = 0;     // from its submission until the engine took it
  std::uint32_t restore = 0;    // its base came from the store
  std::uint32_t recompute = 0;  // its base was read again
  std::uint32_t known = 0;      // what was found by prefix came from the store
  std::uint32_t read = 0;
  std::uint32_t generate = 0;
  std::uint32_t save = 0;  // its blocks went to the store; without the last transaction
  bool operator==(const JobTimes&) const = default;
};

struct JobRecord {
  StateId state;
  std::string name;  // the spooled file's, or "step-17"
  JobKind kind = JobKind::kFeed;
  JobStatus status = JobStatus::kQueued;
  std::string prompt;                         // bytes as they were spooled; kPrune: the policy
  std::map<std::string, std::string> params;  // all of them, resolved at submission
  std::uint64_t seed = 0;
  VersionId base;  // the version it runs on, set when it starts; held (referenced)
  std::int64_t submitted_ns = 0;
  std::int64_t finished_ns = 0;
  std::uint32_t prompt_tokens = 0;
  std::uint32_t generated_tokens = 0;
  std::uint32_t known_tokens = 0;       // of the prompt: found by prefix
  std::uint32_t prefilled_tokens = 0;   // of the prompt: read
  std::uint32_t restored_tokens = 0;    // of the base: from the store; the rest was on the device
  std::uint32_t recomputed_tokens = 0;  // of the base: read again, since that was sooner
  std::uint32_t milliseconds = 0;       // of running
  JobTimes times;
  std::string finish;  // "stop", "length", "canceled"; kPrune: what became of the state
  std::string error;   // "what: why; what to do"
};

// On disk: never renumber.
enum class FileArea : std::uint8_t { kReply = 0, kKept = 1, kUser = 2, kLogprobs = 3 };

struct FileRecord {  // what the daemon keeps beside a state: small, whole
  FileId id;         // never reused
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t mode = 0600;
  std::int64_t changed_ns = 0;
  std::string content;
};

// The files of a version, as the mount names them. On disk and in inode numbers: never renumber.
enum class DataPart : std::uint16_t {
  kStateJson = 0,
  kText = 1,
  kTokens = 2,
  kBundlePt = 3,  // all of it as one file, see bundles.h
  kBundleSafetensors = 4,
  kBundlePkl = 5,
  kBundleNpz = 6,
  kBundleKvfs = 7,
  kFirstLayer = 8
};

constexpr DataPart layer_part(std::uint16_t layer) {
  return static_cast<DataPart>(static_cast<std::uint16_t>(DataPart::kFirstLayer) + layer);
}

// On disk: never renumber.
enum class FileKind : std::uint8_t { kRegular = 0, kSymlink = 1 };

inline constexpr std::uint64_t kPieceBytes = std::uint64_t{128} << 10;

// A file of a user's: a note beside a state, or what is being copied onto a state's data. Its
// contents are pieces of kPieceBytes, the last one shorter; where a piece is missing they are the
// source's as far as source_bytes reach, and zeros beyond.
struct FileNode {
  FileKind kind = FileKind::kRegular;
  bool linked = true;  // a name leads to it; false: it goes when nobody has it open any more
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t mode = 0600;  // permission bits
  std::uint64_t size = 0;
  std::uint64_t pieces = 0;      // that are there
  std::int64_t modified_ns = 0;  // since the epoch
  std::int64_t changed_ns = 0;   // of anything
  std::string target;            // of a link
  VersionId source;              // held; none: no source
  DataPart source_part = DataPart::kStateJson;
  std::uint64_t source_bytes = 0;
};

// One name that leads to a FileNode.
struct FilePlace {
  StateId directory;    // none: states/
  std::string name;     // staged: a path below the state, such as "kv/layer-000.safetensors"
  bool staged = false;  // not beside the state's files: on its way to become one of them
};

struct FilePiece {
  std::uint64_t number = 0;
  Bytes bytes;  // at most kPieceBytes
};

// What a write changes of a file, in this order.
struct FileWrite {
  FileNode node;  // but kind, linked, pieces and target, which stay; source may only be dropped
  std::uint64_t keep_below = ~std::uint64_t{0};  // pieces from this number on go
  std::vector<FilePiece> pieces;
};

}  // namespace kvfs::store

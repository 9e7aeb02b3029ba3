#include "engine/store/layouts.h"

#include <algorithm>

#include "engine/store/layout_parts.h"

namespace kvfs::store {
namespace {

constexpr std::uint8_t kChunkLayout = 1;
constexpr std::uint8_t kVersionLayout = 2;  // 1: all layers are full
constexpr std::uint8_t kStateLayout = 2;    // 1: neither snapshots nor pins
constexpr std::uint8_t kJobLayout = 2;      // 1: without what became of the base, and without times
constexpr std::uint8_t kFileLayout = 1;
constexpr std::uint8_t kNodeLayout = 1;
constexpr std::uint8_t kSnapshotFlag = 1, kPinnedFlag = 2;

void put_params(ByteWriter& out, const std::map<std::string, std::string>& params) {
  out.number(static_cast<std::uint32_t>(params.size()));
  for (const auto& [name, value] : params) {
    out.text(name);
    out.text(value);
  }
}

std::map<std::string, std::string> take_params(ByteReader& in) {
  std::map<std::string, std::string> params;
  const std::size_t count = take_count(in, 8);
  for (std::size_t i = 0; i < count; ++i) {
    std::string name = in.text();
    params[std::move(name)] = in.text();
  }
  return params;
}

void put_extents(ByteWriter& out, const std::vector<LayerExtent>& extents) {
  for (const LayerExtent& extent : extents) {
    out.number(static_cast<std::uint8_t>(extent.own_positions));
    for (std::uint32_t length : extent.lengths) out.number(length);
  }
}

// One extent a layer, one length a head.
void take_extents(ByteReader& in, VersionRecord& version) {
  for (const LayerShape& layer : version.layers) {
    LayerExtent& extent = version.extents.emplace_back();
    extent.own_positions = in.number<std::uint8_t>() != 0;
    for (int head = 0; head < layer.kv_heads && in.ok(); ++head) {
      extent.lengths.push_back(in.number<std::uint32_t>());
    }
  }
}

void put_times(ByteWriter& out, const JobTimes& times) {
  for (const std::uint32_t part : {times.queued, times.restore, times.recompute, times.known,
                                   times.read, times.generate, times.save}) {
    out.number(part);
  }
}

JobTimes take_times(ByteReader& in) {
  JobTimes times;
  for (std::uint32_t* part : {&times.queued, &times.restore, &times.recompute, &times.known,
                              &times.read, &times.generate, &times.save}) {
    *part = in.number<std::uint32_t>();
  }
  return times;
}

}  // namespace

// --- chunks -------------------------------------------------------------------------------------

Bytes encode(const ChunkHeader& header) {
  ByteWriter out;
  out.number(kChunkLayout);
  out.number(static_cast<std::uint8_t>(header.codec));
  put_shape(out, header.shape);
  out.number(std::uint8_t{0});
  out.number(header.encoded_size);
  out.number(header.checksum);
  return out.take();
}

Result<ChunkHeader> decode_chunk_header(ByteSpan value, const std::string& what) {
  ByteReader in(value);
  KVFS_TRY(check_layout(in, kChunkLayout, what));
  ChunkHeader header;
  header.codec = take_enum(in, chunk::CodecId::kZh);
  header.shape = take_shape(in);
  in.number<std::uint8_t>();
  header.encoded_size = in.number<std::uint32_t>();
  header.checksum = in.number<std::uint64_t>();
  if (!in.ok() || in.left() != header.encoded_size) return damaged(what);
  return header;
}

// --- versions -----------------------------------------------------------------------------------

Bytes encode(const VersionRecord& version) {
  ByteWriter out;
  out.number(kVersionLayout);
  out.number(version.references);
  out.text(version.model);
  out.digest(version.fingerprint);
  out.text(version.kernel_class);
  out.number(static_cast<std::uint8_t>(version.kv_dtype));
  out.number(static_cast<std::uint8_t>(version.codec));
  out.number(static_cast<std::uint8_t>(version.origin));
  out.text(version.origin_detail);
  out.number(version.n_tokens);
  out.number(version.next_pos);
  out.number(static_cast<std::uint16_t>(version.layers.size()));
  for (const LayerShape& layer : version.layers) {
    out.number(layer.kv_heads);
    out.number(layer.key_width);
    out.number(layer.value_width);
    out.number(static_cast<std::uint8_t>(layer.kind));
    out.number(layer.kept);
  }
  put_extents(out, version.extents);
  out.number(static_cast<std::uint32_t>(version.blocks.size()));
  for (BlockId block : version.blocks) out.id(block);
  out.number(version.text_bytes);
  out.number(version.kv_bytes);
  out.digest(version.root);
  return out.take();
}

Result<VersionRecord> decode_version(ByteSpan bytes, const std::string& what) {
  ByteReader in(bytes);
  KVFS_TRY(check_layout(in, kVersionLayout, what));
  const bool has_kinds = bytes.front() >= 2;
  VersionRecord version;
  version.references = in.number<std::uint32_t>();
  version.model = in.text();
  version.fingerprint = in.digest<ModelFingerprint>();
  version.kernel_class = in.text();
  version.kv_dtype = take_dtype(in);
  version.codec = take_enum(in, chunk::CodecId::kZh);
  version.origin = take_enum(in, Origin::kLossy);
  version.origin_detail = in.text();
  version.n_tokens = in.number<std::uint64_t>();
  version.next_pos = in.number<Position>();
  const std::size_t layers = in.number<std::uint16_t>();
  for (std::size_t i = 0; i < layers && in.ok(); ++i) {
    LayerShape& layer = version.layers.emplace_back();
    layer.kv_heads = in.number<std::uint16_t>();
    layer.key_width = in.number<std::uint16_t>();
    layer.value_width = in.number<std::uint16_t>();
    if (!has_kinds) continue;
    layer.kind = take_enum(in, LayerKind::kConvolution);
    layer.kept = in.number<std::uint16_t>();
    if (layer.kept == 0 || layer.kept > kBlockTokens) spoil(in);
  }
  take_extents(in, version);
  const std::size_t blocks = take_count(in, 8);
  version.blocks.reserve(blocks);
  for (std::size_t i = 0; i < blocks; ++i) version.blocks.push_back(in.id<BlockId>());
  version.text_bytes = in.number<std::uint64_t>();
  version.kv_bytes = in.number<std::uint64_t>();
  version.root = in.digest<ContentDigest>();
  return finish(in, std::move(version), what);
}

// --- states, jobs, files ------------------------------------------------------------------------

Bytes encode(const StateRecord& state) {
  ByteWriter out;
  out.number(kStateLayout);
  out.id(state.parent);
  out.text(state.name);
  out.number(state.uid);
  out.number(state.gid);
  out.number(state.mode);
  out.number(state.created_ns);
  out.number(state.changed_ns);
  out.number(state.advanced_ns);
  out.id(state.version);
  put_params(out, state.params);
  out.number(static_cast<std::uint8_t>((state.snapshot ? kSnapshotFlag : 0) |
                                       (state.pinned ? kPinnedFlag : 0)));
  return out.take();
}

Result<StateRecord> decode_state(ByteSpan bytes, const std::string& what) {
  ByteReader in(bytes);
  KVFS_TRY(check_layout(in, kStateLayout, what));
  StateRecord state;
  state.parent = in.id<StateId>();
  state.name = in.text();
  state.uid = in.number<std::uint32_t>();
  state.gid = in.number<std::uint32_t>();
  state.mode = in.number<std::uint32_t>();
  state.created_ns = in.number<std::int64_t>();
  state.changed_ns = in.number<std::int64_t>();
  state.advanced_ns = in.number<std::int64_t>();
  state.version = in.id<VersionId>();
  state.params = take_params(in);
  if (bytes.front() >= 2) {
    const auto flags = in.number<std::uint8_t>();
    if ((flags & ~(kSnapshotFlag | kPinnedFlag)) != 0) spoil(in);
    state.snapshot = (flags & kSnapshotFlag) != 0;
    state.pinned = (flags & kPinnedFlag) != 0;
  }
  return finish(in, std::move(state), what);
}

Bytes encode(const JobRecord& job) {
  ByteWriter out;
  out.number(kJobLayout);
  out.id(job.state);
  out.text(job.name);
  out.number(static_cast<std::uint8_t>(job.kind));
  out.number(static_cast<std::uint8_t>(job.status));
  out.text(job.prompt);
  put_params(out, job.params);
  out.number(job.seed);
  out.id(job.base);
  out.number(job.submitted_ns);
  out.number(job.finished_ns);
  out.number(job.prompt_tokens);
  out.number(job.generated_tokens);
  out.number(job.known_tokens);
  out.number(job.restored_tokens);
  out.number(job.milliseconds);
  out.number(job.prefilled_tokens);
  out.number(job.recomputed_tokens);
  put_times(out, job.times);
  out.text(job.finish);
  out.text(job.error);
  return out.take();
}

Result<JobRecord> decode_job(ByteSpan bytes, const std::string& what) {
  ByteReader in(bytes);
  KVFS_TRY(check_layout(in, kJobLayout, what));
  const bool has_times = bytes.front() >= 2;
  JobRecord job;
  job.state = in.id<StateId>();
  job.name = in.text();
  job.kind = take_enum(in, JobKind::kPrune);
  job.status = take_enum(in, JobStatus::kCanceled);
  job.prompt = in.text();
  job.params = take_params(in);
  job.seed = in.number<std::uint64_t>();
  job.base = in.id<VersionId>();
  job.submitted_ns = in.number<std::int64_t>();
  job.finished_ns = in.number<std::int64_t>();
  job.prompt_tokens = in.number<std::uint32_t>();
  job.generated_tokens = in.number<std::uint32_t>();
  job.known_tokens = in.number<std::uint32_t>();
  job.restored_tokens = in.number<std::uint32_t>();
  job.milliseconds = in.number<std::uint32_t>();
  if (has_times) {
    job.prefilled_tokens = in.number<std::uint32_t>();
    job.recomputed_tokens = in.number<std::uint32_t>();
    job.times = take_times(in);
  } else {
    job.prefilled_tokens = job.prompt_tokens - std::min(job.known_tokens, job.prompt_tokens);
  }
  job.finish = in.text();
  job.error = in.text();
  return finish(in, std::move(job), what);
}

Bytes encode(const FileRecord& file) {
  ByteWriter out;
  out.number(kFileLayout);
  out.id(file.id);
  out.number(file.uid);
  out.number(file.gid);
  out.number(file.mode);
  out.number(file.changed_ns);
  out.text(file.content);
  return out.take();
}

Result<FileRecord> decode_file(ByteSpan bytes, const std::string& what) {
  ByteReader in(bytes);
  KVFS_TRY(check_layout(in, kFileLayout, what));
  FileRecord file;
  file.id = in.id<FileId>();
  file.uid = in.number<std::uint32_t>();
  file.gid = in.number<std::uint32_t>();
  file.mode = in.number<std::uint32_t>();
  file.changed_ns = in.number<std::int64_t>();
  file.content = in.text();
  return finish(in, std::move(file), what);
}

Bytes encode(const FileNode& node) {
  ByteWriter out;
  out.number(kNodeLayout);
  out.number(static_cast<std::uint8_t>(node.kind));
  out.number(static_cast<std::uint8_t>(node.linked));
  out.number(node.uid);
  out.number(node.gid);
  out.number(node.mode);
  out.number(node.size);
  out.number(node.pieces);
  out.number(node.modified_ns);
  out.number(node.changed_ns);
  out.text(node.target);
  out.id(node.source);
  out.number(static_cast<std::uint16_t>(node.source_part));
  out.number(node.source_bytes);
  return out.take();
}

Result<FileNode> decode_node(ByteSpan bytes, const std::string& what) {
  ByteReader in(bytes);
  KVFS_TRY(check_layout(in, kNodeLayout, what));
  FileNode node;
  node.kind = take_enum(in, FileKind::kSymlink);
  node.linked = in.number<std::uint8_t>() != 0;
  node.uid = in.number<std::uint32_t>();
  node.gid = in.number<std::uint32_t>();
  node.mode = in.number<std::uint32_t>();
  node.size = in.number<std::uint64_t>();
  node.pieces = in.number<std::uint64_t>();
  node.modified_ns = in.number<std::int64_t>();
  node.changed_ns = in.number<std::int64_t>();
  node.target = in.text();
  node.source = in.id<VersionId>();
  node.source_part = static_cast<DataPart>(in.number<std::uint16_t>());
  node.source_bytes = in.number<std::uint64_t>();
  return finish(in, std::move(node), what);
}

// --- names --------------------------------------------------------------------------------------

std::string_view name_of(Origin origin) {
  switch (origin) {
    case Origin::kComputed:
      return "computed";
    case Origin::kImported:
      return "imported";
    case Origin::kEdited:
      return "edited";
    case Origin::kPruned:
      return "pruned";
    case Origin::kLossy:
      return "lossy";
  }
  return "?";
}

std::string_view name_of(JobKind kind) {
  switch (kind) {
    case JobKind::kFeed:
      return "feed";
    case JobKind::kContinue:
      return "continue";
    case JobKind::kAsk:
      return "ask";
    case JobKind::kStep:
      return "step";
    case JobKind::kPrune:
      return "prune";
  }
  return "?";
}

std::string_view name_of(JobStatus status) {
  switch (status) {
    case JobStatus::kQueued:
      return "queued";
    case JobStatus::kRunning:
      return "running";
    case JobStatus::kDone:
      return "done";
    case JobStatus::kFailed:
      return "failed";
    case JobStatus::kCanceled:
      return "canceled";
  }
  return "?";
}

}  // namespace kvfs::store

#include "codec/chunk/zh.h"

#include <limits>
#include <memory>

#include "codec/chunk/order0.h"
#include "codec/chunk/planes.h"

namespace kvfs::chunk {
namespace {

constexpr std::uint8_t kLayoutVersion = 1;
constexpr std::uint8_t kHasCentres = 1;
constexpr std::size_t kHeaderBytes = 8;
constexpr std::uint32_t kCentredPositions = 16;  // below, the centres cost more than they save

// Cannot overflow: 16 + 32 + 16 bits.
std::size_t element_count(const ShapeClass& shape) {
  return std::size_t{shape.heads} * shape.positions * shape.width;
}

tl::unexpected<Error> corrupt(std::string why) {
  return fail(ErrorCode::kCorrupt, "chunk coded as zh", std::move(why),
              "restore the state from a copy, or let it be computed again");
}

}  // namespace

std::optional<Bytes> zh_encode(const ShapeClass& shape, ByteSpan bytes) {
  const std::size_t count = element_count(shape);
  const std::size_t element = size_of(shape.dtype);
  const std::size_t rest_size = count * rest_bytes(shape.dtype);
  if (rest_size == 0 || bytes.size() / element != count || bytes.size() % element != 0) {
    return std::nullopt;
  }
  const bool centred = shape.positions >= kCentredPositions;
  const std::size_t channels = std::size_t{shape.heads} * shape.width;
  const std::size_t rest_at = kHeaderBytes + (centred ? channels : 0);
  const std::size_t frame_at = rest_at + rest_size;

  Bytes out(frame_at + order0_bound(count));
  Bytes no_centres(centred ? 0 : channels);
  const MutableByteSpan centres =
      centred ? MutableByteSpan(out).subspan(kHeaderBytes, channels) : MutableByteSpan(no_centres);
  if (centred) mean_exponents(shape, bytes, centres);
  const auto scratch = std::make_unique_for_overwrite<std::uint8_t[]>(count);
  const MutableByteSpan symbols(scratch.get(), count);
  split_planes(shape, bytes, centres, symbols, MutableByteSpan(out).subspan(rest_at, rest_size));

  const auto frame = order0_encode(symbols, MutableByteSpan(out).subspan(frame_at));
  if (!frame || frame_at + *frame >= bytes.size() ||
      *frame > std::numeric_limits<std::uint32_t>::max()) {
    return std::nullopt;
  }
  const auto frame_size = static_cast<std::uint32_t>(*frame);
  out[0] = kLayoutVersion;
  out[1] = centred ? kHasCentres : 0;
  std::memcpy(out.data() + 4, &frame_size, sizeof frame_size);
  out.resize(frame_at + *frame);
  return out;
}

Result<ZhParts> zh_parts(const ShapeClass& shape, ByteSpan encoded) {
  const std::size_t count = element_count(shape);
  if (rest_bytes(shape.dtype) == 0) {
    return corrupt("elements of " + std::string(name_of(shape.dtype)) + " are never coded so");
  }
  if (count > encoded.size()) return corrupt("shorter than its planes");
  ByteReader reader(encoded);
  const auto version = reader.number<std::uint8_t>();
  const auto flags = reader.number<std::uint8_t>();
  const auto reserved = reader.number<std::uint16_t>();
  const auto frame_size = reader.number<std::uint32_t>();
  if (!reader.ok()) return corrupt("shorter than its header");
  if (version != kLayoutVersion || (flags & ~kHasCentres) != 0 || reserved != 0) {
    return corrupt("layout version " + std::to_string(version) + ", flags " +
                   std::to_string(flags) + " are unknown");
  }
  ZhParts parts;
  if (flags != 0) parts.centres = reader.raw(std::size_t{shape.heads} * shape.width);
  parts.rest = reader.raw(count * rest_bytes(shape.dtype));
  parts.frame = reader.raw(frame_size);
  if (!reader.ok() || !reader.at_end()) {
    return corrupt(std::to_string(encoded.size()) + " bytes do not match its lengths");
  }
  return parts;
}

Status zh_decode(const ShapeClass& shape, ByteSpan encoded, MutableByteSpan out) {
  const std::size_t count = element_count(shape);
  const std::size_t element = size_of(shape.dtype);
  if (count == 0 || out.size() / element != count || out.size() % element != 0) {
    return corrupt("its shape has " + std::to_string(count) + " elements, the room is " +
                   std::to_string(out.size()) + " bytes");
  }
  KVFS_ASSIGN(const ZhParts parts, zh_parts(shape, encoded));
  const Bytes no_centres(parts.centres.empty() ? std::size_t{shape.heads} * shape.width : 0);
  const auto scratch = std::make_unique_for_overwrite<std::uint8_t[]>(count);
  const MutableByteSpan symbols(scratch.get(), count);
  if (const Status status = order0_decode(parts.frame, symbols); !status) {
    if (status.error().code != ErrorCode::kCorrupt) return status;
    return corrupt(status.error().message());
  }
  join_planes(shape, symbols, parts.rest,
              parts.centres.empty() ? ByteSpan(no_centres) : parts.centres, out);
  return {};
}

}  // namespace kvfs::chunk

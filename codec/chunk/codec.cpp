#include "codec/chunk/codec.h"

#include <optional>

#include "codec/chunk/zh.h"

namespace kvfs::chunk {
namespace {

// One row a codec; raw is what every other falls back to, so its encoder always gives bytes.
struct Row {
  CodecId id;
  std::string_view name;
  std::optional<Bytes> (*encode)(const ShapeClass& shape, ByteSpan bytes);
  Status (*decode)(const ShapeClass& shape, ByteSpan encoded, MutableByteSpan out);
};

std::optional<Bytes> raw_encode(const ShapeClass&, ByteSpan bytes) {
  return Bytes(bytes.begin(), bytes.end());
}

Status raw_decode(const ShapeClass&, ByteSpan encoded, MutableByteSpan out) {
  if (encoded.size() != out.size()) {
    return fail(ErrorCode::kCorrupt, "chunk stored as raw",
                std::to_string(encoded.size()) + " bytes are stored, " +
                    std::to_string(out.size()) + " are due");
  }
  if (!out.empty()) std::memcpy(out.data(), encoded.data(), out.size());
  return {};
}

constexpr Row kRows[] = {
    {CodecId::kRaw, "raw", raw_encode, raw_decode},
    {CodecId::kZh, "zh", zh_encode, zh_decode},
};

const Row* row_of(CodecId id) {
  for (const Row& row : kRows) {
    if (row.id == id) return &row;
  }
  return nullptr;
}

}  // namespace

Encoded encode(CodecId wanted, const ShapeClass& shape, ByteSpan bytes) {
  if (const Row* row = row_of(wanted); row != nullptr && wanted != CodecId::kRaw) {
    if (auto encoded = row->encode(shape, bytes)) return {wanted, *std::move(encoded)};
  }
  return {CodecId::kRaw, *raw_encode(shape, bytes)};
}

Status decode(CodecId codec, const ShapeClass& shape, ByteSpan encoded, MutableByteSpan out) {
  const Row* row = row_of(codec);
  if (row == nullptr) {
    return fail(ErrorCode::kCorrupt, "chunk",
                "codec number " + std::to_string(static_cast<unsigned>(codec)) + " is unknown",
                "a newer kvfsd may have written it");
  }
  return row->decode(shape, encoded, out);
}

std::string_view name_of(CodecId codec) {
  const Row* row = row_of(codec);
  return row != nullptr ? row->name : "?";
}

Result<CodecId> codec_from_name(std::string_view name) {
  std::string known;
  for (const Row& row : kRows) {
    if (row.name == name) return row.id;
    known.append(known.empty() ? "" : ", ").append(row.name);
  }
  return fail(ErrorCode::kInvalid, "codec '" + std::string(name) + "'", "no such codec",
              "take one of " + known);
}

}  // namespace kvfs::chunk

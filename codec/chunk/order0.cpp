#include "codec/chunk/order0.h"

#define ZSTD_STATIC_LINKING_ONLY  // ZSTD_compressSequences
#include <zstd.h>

#include <algorithm>
#include <memory>
#include <vector>

namespace kvfs::chunk {
namespace {

struct FreeContext {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};
using Compressor = std::unique_ptr<ZSTD_CCtx, FreeContext>;
using Decompressor = std::unique_ptr<ZSTD_DCtx, FreeContext>;

// Null where there is no memory or zstd knows a parameter no more.
Compressor make_compressor() {
  Compressor context(ZSTD_createCCtx());
  const std::pair<ZSTD_cParameter, int> parameters[] = {
      {ZSTD_c_strategy, ZSTD_fast},
      {ZSTD_c_windowLog, 17},
      {ZSTD_c_hashLog, ZSTD_HASHLOG_MIN},  // nothing is looked up
      {ZSTD_c_literalCompressionMode, ZSTD_ps_enable},
      {ZSTD_c_blockDelimiters, ZSTD_sf_explicitBlockDelimiters},
  };
  for (const auto& [parameter, value] : parameters) {
    if (context && ZSTD_isError(ZSTD_CCtx_setParameter(context.get(), parameter, value)) != 0) {
      context.reset();
    }
  }
  return context;
}

}  // namespace

std::size_t order0_bound(std::size_t size) { return ZSTD_compressBound(size); }

std::optional<std::size_t> order0_encode(ByteSpan bytes, MutableByteSpan out) {
  thread_local const Compressor context = make_compressor();
  if (!context) return std::nullopt;
  // Handing zstd the sequences, none of which is a match, is what keeps it from searching.
  std::vector<ZSTD_Sequence> blocks;
  for (std::size_t at = 0; at < bytes.size(); at += ZSTD_BLOCKSIZE_MAX) {
    const std::size_t literals = std::min<std::size_t>(bytes.size() - at, ZSTD_BLOCKSIZE_MAX);
    blocks.push_back({0, static_cast<unsigned>(literals), 0, 0});
  }
  const std::size_t size =
      ZSTD_compressSequences(context.get(), out.data(), out.size(), blocks.data(), blocks.size(),
                             bytes.data(), bytes.size());
  if (ZSTD_isError(size) != 0) {
    ZSTD_CCtx_reset(context.get(), ZSTD_reset_session_only);
    return std::nullopt;
  }
  return size;
}

Status order0_decode(ByteSpan frame, MutableByteSpan out) {
  thread_local const Decompressor context(ZSTD_createDCtx());
  if (!context) return fail(ErrorCode::kInternal, "zstd frame", "no memory for a context");
  const std::size_t size =
      ZSTD_decompressDCtx(context.get(), out.data(), out.size(), frame.data(), frame.size());
  if (ZSTD_isError(size) != 0) {
    return fail(ErrorCode::kCorrupt, "zstd frame", ZSTD_getErrorName(size));
  }
  if (size != out.size()) {
    return fail(
        ErrorCode::kCorrupt, "zstd frame",
        "holds " + std::to_string(size) + " bytes, " + std::to_string(out.size()) + " are due");
  }
  return {};
}

}  // namespace kvfs::chunk

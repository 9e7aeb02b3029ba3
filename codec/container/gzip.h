// gzip files (zlib): in, whole, in memory; out, as it comes. Any thread, a writer one at a time.
// Errors: kCorrupt, kTooLarge; what the sink says.
#pragma once

#include <functional>
#include <memory>

#include "codec/base/bytes.h"
#include "codec/base/result.h"

namespace kvfs::container {

bool is_gzip(ByteSpan file);
// All members of the file, one after the other; what comes out may have most_bytes.
Result<Bytes> gunzip(ByteSpan file, std::uint64_t most_bytes);

class GzipWriter {
 public:
  using Sink = std::function<Status(ByteSpan)>;
  explicit GzipWriter(Sink sink);
  ~GzipWriter();

  Status write(ByteSpan bytes);
  Status finish();

 private:
  struct Deflater;
  Status deflate_all(ByteSpan bytes, int flush);

  const Sink sink_;
  const std::unique_ptr<Deflater> deflater_;
};

}  // namespace kvfs::container

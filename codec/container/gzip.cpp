#include "codec/container/gzip.h"

#include <zlib.h>

#include <algorithm>
#include <utility>

namespace kvfs::container {
namespace {

constexpr std::size_t kStep = 64 << 10;
constexpr int kGzipWindow = 15 + 16;  // zlib: 2^15 bytes, a gzip header and no other

struct Inflater {
  z_stream stream{};
  bool ready = inflateInit2(&stream, kGzipWindow) == Z_OK;
  Inflater() = default;
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;
  ~Inflater() { inflateEnd(&stream); }
};

tl::unexpected<Error> corrupt(const char* why) {
  return fail(ErrorCode::kCorrupt, "gzip file", why, "compress it again");
}

constexpr int kFast = 1;  // keys and values are noise: more effort gains nothing

}  // namespace

struct GzipWriter::Deflater {
  z_stream stream{};
  bool ready = deflateInit2(&stream, kFast, Z_DEFLATED, kGzipWindow, 8, Z_DEFAULT_STRATEGY) == Z_OK;
  Bytes out = Bytes(kStep);
  ~Deflater() { deflateEnd(&stream); }
};

GzipWriter::GzipWriter(Sink sink)
    : sink_(std::move(sink)), deflater_(std::make_unique<Deflater>()) {}
GzipWriter::~GzipWriter() = default;

Status GzipWriter::deflate_all(ByteSpan bytes, int flush) {
  z_stream& stream = deflater_->stream;
  if (!deflater_->ready) return fail(ErrorCode::kInternal, "gzip file", "zlib does not start");
  stream.next_in = const_cast<std::uint8_t*>(bytes.data());
  stream.avail_in = static_cast<uInt>(bytes.size());
  do {
    stream.next_out = deflater_->out.data();
    stream.avail_out = static_cast<uInt>(deflater_->out.size());
    deflate(&stream, flush);
    KVFS_TRY(sink_(ByteSpan(deflater_->out).first(deflater_->out.size() - stream.avail_out)));
  } while (stream.avail_out == 0);
  return {};
}

Status GzipWriter::write(ByteSpan bytes) {
  for (constexpr std::size_t kMost = 1 << 30; !bytes.empty();) {
    const ByteSpan part = bytes.first(std::min(kMost, bytes.size()));
    KVFS_TRY(deflate_all(part, Z_NO_FLUSH));
    bytes = bytes.subspan(part.size());
  }
  return {};
}

Status GzipWriter::finish() { return deflate_all({}, Z_FINISH); }

bool is_gzip(ByteSpan file) { return as_text(file).starts_with("\x1f\x8b"); }

Result<Bytes> gunzip(ByteSpan file, std::uint64_t most_bytes) {
  Inflater inflater;
  z_stream& stream = inflater.stream;
  if (!inflater.ready) return fail(ErrorCode::kInternal, "gzip file", "zlib does not start");
  Bytes out;
  std::size_t used = 0;  // of out
  std::size_t fed = 0;   // of file
  bool at_member_end = false;
  while (!at_member_end || fed < file.size()) {
    if (at_member_end && inflateReset(&stream) != Z_OK) return corrupt("zlib does not start");
    if (used == out.size()) {
      if (used >= most_bytes) {
        return fail(ErrorCode::kTooLarge, "gzip file",
                    "more than " + std::to_string(most_bytes) + " bytes come out of it");
      }
      out.resize(std::min<std::uint64_t>(most_bytes, std::max(kStep, 2 * used)));
    }
    const std::size_t in = std::min<std::size_t>(file.size() - fed, 1 << 30);
    const std::size_t room = std::min<std::size_t>(out.size() - used, 1 << 30);
    stream.next_in = const_cast<std::uint8_t*>(file.data() + fed);
    stream.avail_in = static_cast<uInt>(in);
    stream.next_out = out.data() + used;
    stream.avail_out = static_cast<uInt>(room);
    const int verdict = inflate(&stream, Z_NO_FLUSH);
    fed += in - stream.avail_in;
    used += room - stream.avail_out;
    at_member_end = verdict == Z_STREAM_END;
    if (at_member_end) continue;
    if (verdict == Z_BUF_ERROR ||
        (verdict == Z_OK && fed == file.size() && stream.avail_out != 0)) {
      return corrupt("it ends too soon");
    }
    if (verdict != Z_OK) return corrupt(stream.msg != nullptr ? stream.msg : "damaged");
  }
  out.resize(used);
  return out;
}

}  // namespace kvfs::container

#include "codec/container/gzip.h"

#include <zlib.h>

#include <algorithm>

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

}  // namespace

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

#include "codec/container/zip_file.h"

#include <zip.h>

#include <algorithm>
#include <utility>

#include "codec/container/quote.h"

namespace kvfs::container {
namespace {

constexpr std::uint64_t kMostEntries = 1 << 16;
constexpr std::uint64_t kBestRatio = 1032;  // deflate: 258 bytes of two bits

tl::unexpected<Error> corrupt(std::string what, std::string why) {
  return fail(ErrorCode::kCorrupt, std::move(what), std::move(why), "write the file again");
}

}  // namespace

// libzip does not tell where in the file an entry lies, but its source is ours and sees it read
// there.
struct ZipFile::Source {
  ByteSpan file;
  std::uint64_t at = 0;
  std::uint64_t last_read = 0;  // where the last read began
  zip_error_t error{};

  static zip_int64_t call(void* self, void* data, zip_uint64_t size, zip_source_cmd_t command) {
    return static_cast<Source*>(self)->answer(data, size, command);
  }
  zip_int64_t answer(void* data, zip_uint64_t size, zip_source_cmd_t command) {
    switch (command) {
      case ZIP_SOURCE_OPEN:
        at = 0;
        return 0;
      case ZIP_SOURCE_READ: {
        const std::uint64_t count = std::min<std::uint64_t>(size, file.size() - at);
        last_read = at;
        std::copy_n(file.data() + at, count, static_cast<std::uint8_t*>(data));
        at += count;
        return static_cast<zip_int64_t>(count);
      }
      case ZIP_SOURCE_SEEK: {
        const zip_int64_t to = zip_source_seek_compute_offset(at, file.size(), data, size, &error);
        if (to < 0) return -1;
        at = static_cast<std::uint64_t>(to);
        return 0;
      }
      case ZIP_SOURCE_TELL:
        return static_cast<zip_int64_t>(at);
      case ZIP_SOURCE_STAT: {
        auto* facts = static_cast<zip_stat_t*>(data);
        zip_stat_init(facts);
        facts->size = file.size();
        facts->valid = ZIP_STAT_SIZE;
        return sizeof *facts;
      }
      case ZIP_SOURCE_ERROR:
        return zip_error_to_data(&error, data, size);
      case ZIP_SOURCE_SUPPORTS:
        return ZIP_SOURCE_SUPPORTS_SEEKABLE;
      default:
        return 0;
    }
  }
};

ZipFile::ZipFile() = default;
ZipFile::ZipFile(ZipFile&& other) noexcept = default;
ZipFile::~ZipFile() = default;

void ZipFile::Closer::operator()(zip* archive) const { zip_discard(archive); }

bool ZipFile::is_zip(ByteSpan file) {
  return as_text(file).starts_with(std::string_view("PK\x03\x04", 4));
}

Result<ZipFile> ZipFile::open(ByteSpan file) {
  ZipFile out;
  out.source_ = std::make_unique<Source>();
  out.source_->file = file;
  zip_error_t error;
  zip_error_init(&error);
  zip_source_t* source = zip_source_function_create(&Source::call, out.source_.get(), &error);
  if (source != nullptr) out.archive_.reset(zip_open_from_source(source, ZIP_RDONLY, &error));
  if (out.archive_ == nullptr) {
    const std::string why = zip_error_strerror(&error);
    zip_error_fini(&error);
    if (source != nullptr) zip_source_free(source);
    return corrupt("zip file", why);
  }
  const auto count = static_cast<std::uint64_t>(zip_get_num_entries(out.archive_.get(), 0));
  if (count > kMostEntries) {
    return fail(ErrorCode::kTooLarge, "zip file", std::to_string(count) + " entries");
  }
  for (std::uint64_t i = 0; i < count; ++i) {
    zip_stat_t facts;
    if (zip_stat_index(out.archive_.get(), i, 0, &facts) != 0 || facts.name == nullptr) {
      return corrupt("zip file", "entry " + std::to_string(i) + " has no name");
    }
    const bool is_new = out.entries_
                            .emplace(facts.name, Entry{i, facts.size, facts.comp_size,
                                                       facts.comp_method == ZIP_CM_STORE,
                                                       facts.encryption_method != ZIP_EM_NONE})
                            .second;
    if (!is_new) return corrupt("zip file", "two entries " + in_quotes(facts.name));
  }
  return out;
}

Result<ByteSpan> ZipFile::bytes_of(std::string_view name) {
  if (const auto known = known_.find(name); known != known_.end()) return known->second;
  const std::string what = "zip entry " + in_quotes(name);
  const auto found = entries_.find(name);
  if (found == entries_.end()) return fail(ErrorCode::kNotFound, what, "not there");
  const Entry& entry = found->second;
  if (entry.is_encrypted) return fail(ErrorCode::kUnsupported, what, "encrypted");
  KVFS_ASSIGN(const ByteSpan bytes, entry.is_stored ? stored(entry, what) : inflated(entry, what));
  known_.emplace(name, bytes);
  return bytes;
}

Result<ByteSpan> ZipFile::stored(const Entry& entry, const std::string& what) {
  if (entry.size != entry.stored_size || entry.size > source_->file.size()) {
    return corrupt(what, "size: " + std::to_string(entry.size) + " bytes are not there");
  }
  if (entry.size == 0) return ByteSpan();
  const std::unique_ptr<zip_file_t, int (*)(zip_file_t*)> stream(
      zip_fopen_index(archive_.get(), entry.index, ZIP_FL_COMPRESSED), &zip_fclose);
  std::uint8_t first = 0;
  if (stream == nullptr || zip_fread(stream.get(), &first, 1) != 1) {
    return corrupt(what, zip_strerror(archive_.get()));
  }
  const std::uint64_t begin = source_->last_read;
  if (begin > source_->file.size() || entry.size > source_->file.size() - begin) {
    return corrupt(what, "it runs beyond the file");
  }
  return source_->file.subspan(begin, entry.size);
}

Result<ByteSpan> ZipFile::inflated(const Entry& entry, const std::string& what) {
  // Entries may lie one over the other: all of them together can be no more than the file inflates
  // to.
  const std::uint64_t file_size = source_->file.size();
  const bool fits = entry.stored_size <= file_size &&
                    entry.size / kBestRatio <= entry.stored_size &&
                    (inflated_bytes_ += entry.size) / kBestRatio <= file_size;
  if (!fits) {
    return fail(ErrorCode::kTooLarge, what,
                std::to_string(entry.size) + " bytes cannot come out of " +
                    std::to_string(entry.stored_size),
                "write the file again");
  }
  const std::unique_ptr<zip_file_t, int (*)(zip_file_t*)> stream(
      zip_fopen_index(archive_.get(), entry.index, 0), &zip_fclose);
  if (stream == nullptr) return corrupt(what, zip_strerror(archive_.get()));
  Bytes out(entry.size);
  std::uint64_t at = 0;
  while (at < entry.size) {
    const zip_int64_t count = zip_fread(stream.get(), out.data() + at, entry.size - at);
    if (count <= 0) return corrupt(what, "it does not inflate to its size, or its CRC differs");
    at += static_cast<std::uint64_t>(count);
  }
  inflated_.push_back(std::move(out));
  return ByteSpan(inflated_.back());
}

}  // namespace kvfs::container

#include "codec/container/npy.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "codec/container/quote.h"

namespace kvfs::container {
namespace {

constexpr std::uint8_t kMagic[] = {0x93, 'N', 'U', 'M', 'P', 'Y'};
constexpr std::size_t kPrefixBytes = sizeof kMagic + 2 + 2;  // magic, version, length
constexpr std::size_t kAlignment = 64;
constexpr std::size_t kMostDims = 32;  // NumPy's own limit

struct Descr {
  DType dtype;
  std::string_view text;
};
constexpr Descr kDescrs[] = {
    {DType::kI32, "<i4"}, {DType::kI64, "<i8"}, {DType::kF32, "<f4"},
    {DType::kF16, "<f2"}, {DType::kU8, "|u1"},  {DType::kI8, "|i1"},
};

std::string_view descr_of(DType dtype) {
  for (const Descr& descr : kDescrs) {
    if (descr.dtype == dtype) return descr.text;
  }
  return "|V2";
}

tl::unexpected<Error> refuse(ErrorCode code, std::string why) {
  return fail(code, "npy header", std::move(why),
              "save the array again with numpy.save, C order, little-endian");
}
tl::unexpected<Error> corrupt(std::string why) {
  return refuse(ErrorCode::kCorrupt, std::move(why));
}

// Walks the header's text, a Python dict of three keys.
class DictCursor {
 public:
  explicit DictCursor(std::string_view text) : rest_(text) {}

  bool take(char c) {
    skip_spaces();
    if (rest_.empty() || rest_.front() != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  bool take_word(std::string_view word) {
    skip_spaces();
    if (!rest_.starts_with(word)) return false;
    rest_.remove_prefix(word.size());
    return true;
  }
  std::optional<std::string_view> quoted_text() {
    skip_spaces();
    if (rest_.empty() || (rest_.front() != '\'' && rest_.front() != '"')) return std::nullopt;
    const std::size_t end = rest_.find(rest_.front(), 1);
    if (end == std::string_view::npos) return std::nullopt;
    const std::string_view out = rest_.substr(1, end - 1);
    rest_.remove_prefix(end + 1);
    return out;
  }
  std::optional<std::uint64_t> number() {
    skip_spaces();
    std::uint64_t value = 0;
    const auto [end, problem] =
        std::from_chars(rest_.data(), rest_.data() + rest_.size(), value, 10);
    if (problem != std::errc{}) return std::nullopt;
    rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
    return value;
  }
  bool at_end() {
    skip_spaces();
    return rest_.empty();
  }

 private:
  void skip_spaces() {
    while (!rest_.empty() && (rest_.front() == ' ' || rest_.front() == '\n')) {
      rest_.remove_prefix(1);
    }
  }
  std::string_view rest_;
};

Status read_descr(DictCursor& cursor, NpyHeader& header) {
  const auto text = cursor.quoted_text();
  if (!text) return corrupt("descr: not a string");
  for (const Descr& descr : kDescrs) {
    if (descr.text == *text) {
      header.dtype = descr.dtype;
      return {};
    }
  }
  return refuse(ErrorCode::kUnsupported,
                "descr: " + in_quotes(*text) + " is none of <i4, <i8, <f4, <f2, |u1, |i1");
}

Status read_order(DictCursor& cursor) {
  if (cursor.take_word("False")) return {};
  if (cursor.take_word("True")) {
    return refuse(ErrorCode::kUnsupported, "fortran_order: columns come first");
  }
  return corrupt("fortran_order: neither True nor False");
}

Status read_shape(DictCursor& cursor, NpyHeader& header) {
  if (!cursor.take('(')) return corrupt("shape: not a tuple");
  while (!cursor.take(')')) {
    const auto dim = cursor.number();
    if (!dim) return corrupt("shape: not a tuple of whole numbers");
    header.shape.push_back(*dim);
    if (header.shape.size() > kMostDims) return corrupt("shape: more than 32 dimensions");
    if (cursor.take(',')) continue;
    // (3) is a number in Python, no tuple.
    if (header.shape.size() == 1 || !cursor.take(')')) return corrupt("shape: not a tuple");
    break;
  }
  return {};
}

Status read_dict(std::string_view text, NpyHeader& header) {
  DictCursor cursor(text);
  if (!cursor.take('{')) return corrupt("not a dict");
  bool has_descr = false;
  bool has_order = false;
  bool has_shape = false;
  while (!cursor.take('}')) {
    const auto key = cursor.quoted_text();
    if (!key || !cursor.take(':')) return corrupt("not a dict");
    bool* seen = *key == "descr"           ? &has_descr
                 : *key == "fortran_order" ? &has_order
                 : *key == "shape"         ? &has_shape
                                           : nullptr;
    if (seen == nullptr) return corrupt("unknown key " + in_quotes(*key));
    if (*seen) return corrupt("key " + in_quotes(*key) + " appears twice");
    *seen = true;
    KVFS_TRY(seen == &has_descr   ? read_descr(cursor, header)
             : seen == &has_order ? read_order(cursor)
                                  : read_shape(cursor, header));
    if (cursor.take(',')) continue;
    if (!cursor.take('}')) return corrupt("not a dict");
    break;
  }
  if (!has_descr || !has_order || !has_shape) {
    return corrupt("descr, fortran_order and shape are not all there");
  }
  if (!cursor.at_end()) return corrupt("text after the dict");
  return {};
}

}  // namespace

Bytes make_npy_header(NpyHeader& header) {
  std::string text =
      "{'descr': '" + std::string(descr_of(header.dtype)) + "', 'fortran_order': False, 'shape': (";
  for (std::size_t i = 0; i < header.shape.size(); ++i) {
    if (i != 0) text += ' ';
    text += std::to_string(header.shape[i]);
    if (i + 1 < header.shape.size() || header.shape.size() == 1) text += ',';
  }
  text += "), }";
  header.data_offset = (kPrefixBytes + text.size() + 1 + kAlignment - 1) / kAlignment * kAlignment;
  text.resize(header.data_offset - kPrefixBytes - 1, ' ');
  text += '\n';

  ByteWriter out;
  out.raw(kMagic);
  out.number(std::uint8_t{1});
  out.number(std::uint8_t{0});
  out.number(static_cast<std::uint16_t>(text.size()));  // 32 dims of 20 digits are 704 bytes
  out.raw(as_bytes(text));
  return out.take();
}

Result<NpyHeader> parse_npy_header(ByteSpan front, std::uint64_t file_size) {
  ByteReader reader(front);
  const ByteSpan magic = reader.raw(sizeof kMagic);
  if (!std::equal(magic.begin(), magic.end(), std::begin(kMagic), std::end(kMagic))) {
    return refuse(ErrorCode::kInvalid, "magic: not an npy file");
  }
  const auto major = reader.number<std::uint8_t>();
  const auto minor = reader.number<std::uint8_t>();
  const auto length = reader.number<std::uint16_t>();
  if (!reader.ok()) return corrupt("length: the file ends before it");
  if (major != 1 || minor != 0) {
    return refuse(ErrorCode::kUnsupported, "version: " + std::to_string(major) + "." +
                                               std::to_string(minor) + " is not 1.0");
  }
  const ByteSpan text = reader.raw(length);
  if (!reader.ok()) {
    return corrupt("length: " + std::to_string(length) + " bytes, only " +
                   std::to_string(front.size() - kPrefixBytes) + " are there");
  }
  NpyHeader header;
  KVFS_TRY(read_dict(as_text(text), header));
  header.data_offset = kPrefixBytes + length;
  std::uint64_t size = size_of(header.dtype);
  for (const std::uint64_t dim : header.shape) {
    if (__builtin_mul_overflow(size, dim, &size)) return corrupt("shape: too many elements");
  }
  if (file_size < header.data_offset || file_size - header.data_offset != size) {
    return corrupt("shape: " + std::to_string(size) + " bytes of data are due after byte " +
                   std::to_string(header.data_offset) + ", the file has " +
                   std::to_string(file_size));
  }
  return header;
}

}  // namespace kvfs::container

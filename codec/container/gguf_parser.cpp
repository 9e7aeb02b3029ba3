#include "codec/container/gguf_parser.h"

#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#include "codec/container/quote.h"

namespace kvfs::container {
namespace {

constexpr std::uint32_t kMagic = 0x46554747;          // "GGUF"
constexpr std::uint32_t kSwappedMagic = 0x47475546;   // of a big-endian file
constexpr std::uint64_t kKeyBytes = 65535;            // the format's limit
constexpr std::uint64_t kStringBytes = 16 << 20;      // a chat template, say; they are copied
constexpr std::uint64_t kElementBytes = 1 << 20;      // a token, a merge
constexpr std::uint64_t kArrayElements = 1ULL << 22;  // 8 times the largest vocabulary known
constexpr std::uint64_t kSmallestKey = 8 + 4 + 1;     // length, kind, one byte of value
constexpr std::uint64_t kSmallestTensor = 8 + 4 + 8 + 4 + 8;  // length, rank, one dim, type, offset
constexpr char kDownloadAgain[] = "the file is damaged or cut short: get it again";

std::size_t element_bytes(GgufKind kind) {
  switch (kind) {
    case GgufKind::kU8:
    case GgufKind::kI8:
    case GgufKind::kBool:
      return 1;
    case GgufKind::kU16:
    case GgufKind::kI16:
      return 2;
    case GgufKind::kU32:
    case GgufKind::kI32:
    case GgufKind::kF32:
      return 4;
    case GgufKind::kU64:
    case GgufKind::kI64:
    case GgufKind::kF64:
    case GgufKind::kString:
      return 8;  // of a string, its length
    case GgufKind::kArray:
      return 12;
  }
  return 0;
}

}  // namespace

tl::unexpected<Error> GgufParser::refuse_as(ErrorCode code, std::string_view part,
                                            std::string reason, std::string way_out) const {
  std::string field = entry_;
  if (!part.empty()) field.append(", ").append(part);
  return fail(code, "model file " + file_.path_.string(), field + ": " + std::move(reason),
              std::move(way_out));
}

tl::unexpected<Error> GgufParser::refuse(std::string_view part, std::string reason) const {
  return refuse_as(ErrorCode::kCorrupt, part, std::move(reason), kDownloadAgain);
}

template <class T>
Result<T> GgufParser::number(std::string_view part) {
  if (left() < sizeof(T)) {
    return refuse(part, "the file ends at byte " + std::to_string(bytes_.size()) + ", " +
                            std::to_string(sizeof(T)) + " bytes are needed at " +
                            std::to_string(at_));
  }
  T value;
  std::memcpy(&value, bytes_.data() + at_, sizeof value);
  at_ += sizeof value;
  return value;
}

Result<std::string_view> GgufParser::text(std::string_view part, std::uint64_t limit) {
  KVFS_ASSIGN(const auto length, number<std::uint64_t>(part));
  if (length > limit) {
    return refuse(part, "a length of " + std::to_string(length) + " bytes, at most " +
                            std::to_string(limit) + " are allowed");
  }
  if (length > left()) {
    return refuse(part, "a length of " + std::to_string(length) + " bytes, but the file has " +
                            std::to_string(left()) + " left");
  }
  const std::string_view out = as_text(bytes_.subspan(at_, length));
  at_ += length;
  return out;
}

Status GgufParser::parse() {
  KVFS_TRY(parse_header());
  KVFS_TRY(parse_metadata());
  KVFS_TRY(read_alignment());
  KVFS_TRY(parse_tensors());
  return place_tensors();
}

Status GgufParser::parse_header() {
  KVFS_ASSIGN(const auto magic, number<std::uint32_t>("magic"));
  if (magic == kSwappedMagic) {
    return refuse_as(ErrorCode::kUnsupported, "magic", "a big-endian GGUF file",
                     "convert it to little-endian");
  }
  if (magic != kMagic) {
    return refuse_as(ErrorCode::kInvalid, "magic", "not a GGUF file",
                     "name a .gguf file of version 2 or 3");
  }
  KVFS_ASSIGN(const auto version, number<std::uint32_t>("version"));
  if (version != 2 && version != 3) {
    // A byte-swapped small number has its bits at the top.
    const bool swapped = version != 0 && (version & 0xffffU) == 0;
    return refuse_as(ErrorCode::kUnsupported, "version",
                     swapped ? std::string("a big-endian GGUF file")
                             : "version " + std::to_string(version) + " is not 2 or 3",
                     "convert the model again with a current tool");
  }
  KVFS_ASSIGN(tensor_count_, number<std::uint64_t>("tensor count"));
  KVFS_ASSIGN(key_count_, number<std::uint64_t>("metadata count"));
  if (tensor_count_ > left() / kSmallestTensor) {
    return refuse("tensor count", std::to_string(tensor_count_) + " tensors do not fit into " +
                                      std::to_string(left()) + " bytes");
  }
  if (key_count_ > left() / kSmallestKey) {
    return refuse("metadata count", std::to_string(key_count_) + " keys do not fit into " +
                                        std::to_string(left()) + " bytes");
  }
  return {};
}

Status GgufParser::parse_metadata() {
  for (std::uint64_t i = 0; i < key_count_; ++i) {
    entry_ = "metadata key " + std::to_string(i + 1) + " of " + std::to_string(key_count_);
    KVFS_ASSIGN(const auto key, text("name", kKeyBytes));
    if (key.empty()) return refuse("name", "empty");
    entry_ = "metadata key " + in_quotes(key);
    KVFS_ASSIGN(const auto kind, number<std::uint32_t>("kind"));
    KVFS_ASSIGN(auto held, value(GgufKind{kind}));
    if (!file_.metadata_.emplace(std::string(key), std::move(held)).second) {
      return refuse("", "appears twice");
    }
  }
  return {};
}

Result<GgufValue> GgufParser::value(GgufKind kind) {
  const auto widened = []<class Wide>(auto&& read, std::in_place_type_t<Wide>) {
    return read.map([](auto v) { return GgufValue(static_cast<Wide>(v)); });
  };
  constexpr std::in_place_type_t<std::uint64_t> kUnsigned;
  constexpr std::in_place_type_t<std::int64_t> kSigned;
  constexpr std::in_place_type_t<double> kReal;
  switch (kind) {
    case GgufKind::kU8:
      return widened(number<std::uint8_t>("value"), kUnsigned);
    case GgufKind::kU16:
      return widened(number<std::uint16_t>("value"), kUnsigned);
    case GgufKind::kU32:
      return widened(number<std::uint32_t>("value"), kUnsigned);
    case GgufKind::kU64:
      return widened(number<std::uint64_t>("value"), kUnsigned);
    case GgufKind::kI8:
      return widened(number<std::int8_t>("value"), kSigned);
    case GgufKind::kI16:
      return widened(number<std::int16_t>("value"), kSigned);
    case GgufKind::kI32:
      return widened(number<std::int32_t>("value"), kSigned);
    case GgufKind::kI64:
      return widened(number<std::int64_t>("value"), kSigned);
    case GgufKind::kF32:
      return widened(number<float>("value"), kReal);
    case GgufKind::kF64:
      return widened(number<double>("value"), kReal);
    case GgufKind::kBool: {
      KVFS_ASSIGN(const auto byte, number<std::uint8_t>("value"));
      if (byte > 1) return refuse("value", "a boolean of " + std::to_string(byte));
      return GgufValue(byte == 1);
    }
    case GgufKind::kString: {
      KVFS_ASSIGN(const auto string, text("value", kStringBytes));
      return GgufValue(std::string(string));
    }
    case GgufKind::kArray:
      return array().map([](GgufArray a) { return GgufValue(std::move(a)); });
  }
  return refuse("kind", "unknown kind " + std::to_string(static_cast<std::uint32_t>(kind)));
}

Result<GgufArray> GgufParser::array() {
  KVFS_ASSIGN(const auto number_of_kind, number<std::uint32_t>("array kind"));
  KVFS_ASSIGN(const auto count, number<std::uint64_t>("array length"));
  const GgufKind kind{number_of_kind};
  const std::size_t size = element_bytes(kind);
  if (size == 0) return refuse("array kind", "unknown kind " + std::to_string(number_of_kind));
  if (kind == GgufKind::kArray) {
    return refuse_as(ErrorCode::kUnsupported, "array kind", "an array of arrays",
                     "convert the model without this key");
  }
  if (count > left() / size) {
    return refuse("array length", std::to_string(count) + " elements do not fit into the " +
                                      std::to_string(left()) + " bytes left");
  }
  if (count > kArrayElements) {
    return refuse_as(ErrorCode::kTooLarge, "array length",
                     std::to_string(count) + " elements, at most " +
                         std::to_string(kArrayElements) + " are read",
                     "convert the model without this key");
  }
  GgufArray out;
  const auto filled = [&]() -> Status {
    switch (kind) {
      case GgufKind::kU8:
        return array_of_integers<std::uint8_t>(out, count);
      case GgufKind::kI8:
        return array_of_integers<std::int8_t>(out, count);
      case GgufKind::kU16:
        return array_of_integers<std::uint16_t>(out, count);
      case GgufKind::kI16:
        return array_of_integers<std::int16_t>(out, count);
      case GgufKind::kU32:
        return array_of_integers<std::uint32_t>(out, count);
      case GgufKind::kI32:
        return array_of_integers<std::int32_t>(out, count);
      case GgufKind::kU64:
        return array_of_integers<std::uint64_t>(out, count);
      case GgufKind::kI64:
        return array_of_integers<std::int64_t>(out, count);
      case GgufKind::kF32:
        return array_of_reals<float>(out, count);
      case GgufKind::kF64:
        return array_of_reals<double>(out, count);
      case GgufKind::kBool:
        return array_of_booleans(out, count);
      default:
        return array_of_strings(out, count);
    }
  }();
  KVFS_TRY(filled);
  return out;
}

template <class T>
Status GgufParser::array_of_integers(GgufArray& out, std::uint64_t count) {
  out.integers.reserve(count);
  for (std::uint64_t i = 0; i < count; ++i) {
    KVFS_ASSIGN(const T element, number<T>("array element"));
    if (!std::in_range<std::int64_t>(element)) {
      return refuse("array element", std::to_string(element) + " is beyond 63 bits");
    }
    out.integers.push_back(static_cast<std::int64_t>(element));
  }
  return {};
}

template <class T>
Status GgufParser::array_of_reals(GgufArray& out, std::uint64_t count) {
  out.reals.reserve(count);
  for (std::uint64_t i = 0; i < count; ++i) {
    KVFS_ASSIGN(const T element, number<T>("array element"));
    out.reals.push_back(static_cast<double>(element));
  }
  return {};
}

Status GgufParser::array_of_booleans(GgufArray& out, std::uint64_t count) {
  KVFS_TRY(array_of_integers<std::uint8_t>(out, count));
  for (const std::int64_t element : out.integers) {
    if (element > 1) return refuse("array element", "a boolean of " + std::to_string(element));
  }
  return {};
}

Status GgufParser::array_of_strings(GgufArray& out, std::uint64_t count) {
  out.strings.reserve(count);  // 32 bytes for the 8 that each has in the file at least
  for (std::uint64_t i = 0; i < count; ++i) {
    KVFS_ASSIGN(const auto element, text("array element", kElementBytes));
    out.strings.emplace_back(element);
  }
  return {};
}

Status GgufParser::read_alignment() {
  entry_ = "metadata key 'general.alignment'";
  const auto found = file_.metadata_.find("general.alignment");
  if (found == file_.metadata_.end()) return {};
  const auto* value = std::get_if<std::uint64_t>(&found->second);
  if (value == nullptr) return refuse("", "not an unsigned number");
  if (!std::has_single_bit(*value) || *value < 8 || *value > (1U << 20)) {
    return refuse("", std::to_string(*value) + " is not a power of two from 8 to 1048576");
  }
  alignment_ = *value;
  return {};
}

Status GgufParser::parse_tensors() {
  for (std::uint64_t i = 0; i < tensor_count_; ++i) {
    entry_ = "tensor " + std::to_string(i + 1) + " of " + std::to_string(tensor_count_);
    KVFS_ASSIGN(const auto name, text("name", kKeyBytes));
    if (name.empty()) return refuse("name", "empty");
    entry_ = "tensor " + in_quotes(name);
    std::uint64_t offset = 0;
    KVFS_ASSIGN(auto tensor, tensor_entry(offset));
    tensor.name = name;
    if (!file_.tensor_index_.emplace(name, file_.tensors_.size()).second) {
      return refuse("", "appears twice");
    }
    file_.tensors_.push_back(std::move(tensor));
    offsets_.push_back(offset);
  }
  return {};
}

Result<GgufTensor> GgufParser::tensor_entry(std::uint64_t& offset) {
  GgufTensor tensor;
  KVFS_ASSIGN(const auto rank, number<std::uint32_t>("number of dimensions"));
  if (rank < 1 || rank > 4) {
    return refuse("number of dimensions", std::to_string(rank) + " is not 1 to 4");
  }
  std::uint64_t elements = 1;
  for (std::uint32_t d = 0; d < rank; ++d) {
    KVFS_ASSIGN(const auto dim, number<std::uint64_t>("dimension"));
    if (dim == 0) return refuse("dimension", "0 elements");
    if (__builtin_mul_overflow(elements, dim, &elements) || elements >> 60 != 0) {
      return refuse("dimension", "more than 2^60 elements in all");
    }
    tensor.dims.push_back(dim);
  }
  KVFS_ASSIGN(const auto type, number<std::uint32_t>("type"));
  tensor.type = GgmlType{type};
  if (block_elements(tensor.type) == 0) {
    return refuse_as(ErrorCode::kUnsupported, "type",
                     std::string(name_of(tensor.type)) + " (number " + std::to_string(type) +
                         ") is not supported",
                     "use F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K or Q6_K");
  }
  if (tensor.dims[0] % block_elements(tensor.type) != 0) {
    return refuse("dimension", "a row of " + std::to_string(tensor.dims[0]) +
                                   " elements is no whole number of " +
                                   std::string(name_of(tensor.type)) + " blocks");
  }
  KVFS_ASSIGN(offset, number<std::uint64_t>("offset"));
  if (offset % alignment_ != 0) {
    return refuse("offset", std::to_string(offset) + " is no multiple of the alignment " +
                                std::to_string(alignment_));
  }
  return tensor;
}

Status GgufParser::place_tensors() {
  const std::uint64_t data_start = (at_ + alignment_ - 1) / alignment_ * alignment_;
  for (std::size_t i = 0; i < file_.tensors_.size(); ++i) {
    GgufTensor& tensor = file_.tensors_[i];
    entry_ = "tensor " + in_quotes(tensor.name);
    std::uint64_t elements = 1;  // below 2^60, see tensor_entry
    for (const std::uint64_t dim : tensor.dims) elements *= dim;
    std::uint64_t size = 0;
    const std::uint64_t blocks = elements / block_elements(tensor.type);
    std::uint64_t end = 0;
    if (__builtin_mul_overflow(blocks, block_bytes(tensor.type), &size) ||
        __builtin_add_overflow(data_start, offsets_[i], &end) ||
        __builtin_add_overflow(end, size, &end) || end > bytes_.size()) {
      return refuse("offset", std::to_string(size) + " bytes at " + std::to_string(offsets_[i]) +
                                  " of the data area lie outside the file of " +
                                  std::to_string(bytes_.size()) + " bytes");
    }
    tensor.bytes = bytes_.subspan(data_start + offsets_[i], size);
  }
  return {};
}

}  // namespace kvfs::container

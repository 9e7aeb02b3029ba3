#include "codec/container/safetensors.h"

#include <algorithm>
#include <boost/json.hpp>
#include <optional>
#include <utility>

#include "codec/container/quote.h"

namespace kvfs::container {
namespace {

namespace json = boost::json;

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::uint64_t kLongestHeader = 100'000'000;  // as the format's own library has it
constexpr std::size_t kAlignment = 8;
constexpr char kMetadata[] = "__metadata__";

tl::unexpected<Error> refuse(ErrorCode code, std::string why) {
  return fail(code, "safetensors header", std::move(why), "write the file again");
}
tl::unexpected<Error> refuse(const std::string& field, std::string_view why) {
  return refuse(ErrorCode::kCorrupt, field + ": " + std::string(why));
}

std::uint64_t bytes_of(const TensorEntry& tensor) {
  std::uint64_t size = size_of(tensor.dtype);
  for (const std::uint64_t dim : tensor.shape) size *= dim;
  return size;
}

// Empty on overflow.
std::optional<std::uint64_t> checked_bytes_of(const TensorEntry& tensor) {
  std::uint64_t size = size_of(tensor.dtype);
  for (const std::uint64_t dim : tensor.shape) {
    if (__builtin_mul_overflow(size, dim, &size)) return std::nullopt;
  }
  return size;
}

std::optional<DType> dtype_named(std::string_view name) {
  for (const DType dtype :
       {DType::kF32, DType::kF16, DType::kBF16, DType::kI32, DType::kI64, DType::kU8, DType::kI8}) {
    if (name_of(dtype) == name) return dtype;
  }
  if (name == "BOOL") return DType::kU8;  // masks that old files of GPT-NeoX carry
  return std::nullopt;
}

// Whole numbers from 0 to 2^64 - 1; a 3.0 is none.
std::optional<std::vector<std::uint64_t>> numbers(const json::object& entry, const char* key) {
  const json::value* value = entry.if_contains(key);
  const json::array* array = value != nullptr ? value->if_array() : nullptr;
  if (array == nullptr) return std::nullopt;
  std::vector<std::uint64_t> out;
  for (const json::value& element : *array) {
    if (const auto* whole = element.if_uint64()) {
      out.push_back(*whole);
    } else if (const auto* small = element.if_int64(); small != nullptr && *small >= 0) {
      out.push_back(static_cast<std::uint64_t>(*small));
    } else {
      return std::nullopt;
    }
  }
  return out;
}

Result<TensorEntry> read_entry(std::string_view name, const json::value& value) {
  const std::string field = "tensor " + in_quotes(name);
  const json::object* entry = value.if_object();
  if (entry == nullptr) return refuse(field, "not an object");
  TensorEntry tensor;
  tensor.name = name;
  const json::value* dtype = entry->if_contains("dtype");
  if (dtype == nullptr || !dtype->is_string()) return refuse(field + ", dtype", "not a string");
  const std::string_view dtype_name(dtype->get_string());
  const auto known = dtype_named(dtype_name);
  if (!known) {
    return refuse(ErrorCode::kUnsupported, field + ", dtype: " + in_quotes(dtype_name) +
                                               " is none of F32, F16, BF16, I32, I64, U8, I8, BOOL");
  }
  tensor.dtype = *known;
  auto shape = numbers(*entry, "shape");
  if (!shape) return refuse(field + ", shape", "not a list of whole numbers");
  tensor.shape = *std::move(shape);
  const auto offsets = numbers(*entry, "data_offsets");
  if (!offsets || offsets->size() != 2) {
    return refuse(field + ", data_offsets", "not two whole numbers");
  }
  tensor.begin = offsets->front();
  tensor.end = offsets->back();
  const auto size = checked_bytes_of(tensor);
  if (!size) return refuse(field + ", shape", "more elements than can be");
  if (tensor.end < tensor.begin || tensor.end - tensor.begin != *size) {
    return refuse(field + ", data_offsets", std::to_string(tensor.begin) + " to " +
                                                std::to_string(tensor.end) + " are not the " +
                                                std::to_string(*size) + " bytes of its shape");
  }
  return tensor;
}

Status read_metadata(const json::value& value, std::map<std::string, std::string>& out) {
  const json::object* object = value.if_object();
  if (object == nullptr) return refuse(kMetadata, "not an object");
  for (const auto& [key, text] : *object) {
    if (!text.is_string()) return refuse(kMetadata + (", " + in_quotes(key)), "not a string");
    out.emplace(std::string(key), std::string(text.get_string()));
  }
  return {};
}

// Every byte of the data area belongs to exactly one tensor.
Status check_layout(const std::vector<TensorEntry>& tensors, std::uint64_t data_size) {
  std::uint64_t at = 0;
  for (const TensorEntry& tensor : tensors) {
    const std::string field = "tensor " + in_quotes(tensor.name) + ", data_offsets";
    if (tensor.begin < at) return refuse(field, "overlaps the tensor before it");
    if (tensor.begin > at) return refuse(field, "leaves a hole before it");
    at = tensor.end;
  }
  if (at != data_size) {
    return refuse("data_offsets", "the tensors have " + std::to_string(at) +
                                      " bytes, the file has " + std::to_string(data_size) +
                                      " for them");
  }
  return {};
}

// The JSON text within `front`.
Result<std::string_view> header_text(ByteSpan front, std::uint64_t file_size) {
  ByteReader reader(front);
  const auto length = reader.number<std::uint64_t>();
  if (!reader.ok()) return refuse("length", "the file is shorter than 8 bytes");
  if (length > kLongestHeader) {
    return refuse("length", std::to_string(length) + " bytes are more than 100 MB");
  }
  if (file_size < kLengthBytes || length > file_size - kLengthBytes) {
    return refuse("length", std::to_string(length) + " bytes do not fit into a file of " +
                                std::to_string(file_size));
  }
  const ByteSpan text = reader.raw(length);
  if (!reader.ok()) {
    return refuse("length", std::to_string(length) + " bytes, of which only " +
                                std::to_string(front.size() - kLengthBytes) + " were read");
  }
  return as_text(text);
}

}  // namespace

Bytes make_safetensors_header(SafetensorsHeader& header) {
  json::object root;  // keeps the order of insertion
  if (!header.metadata.empty()) {
    json::object& metadata = root[kMetadata].emplace_object();
    for (const auto& [key, value] : header.metadata) metadata[key] = value;
  }
  std::uint64_t at = 0;
  for (TensorEntry& tensor : header.tensors) {
    tensor.begin = at;
    tensor.end = at += bytes_of(tensor);
    json::object& entry = root[tensor.name].emplace_object();
    const std::string_view dtype = name_of(tensor.dtype);
    entry["dtype"] = json::string_view(dtype.data(), dtype.size());
    entry["shape"] = json::array(tensor.shape.begin(), tensor.shape.end());
    entry["data_offsets"] = {tensor.begin, tensor.end};
  }
  std::string text = json::serialize(root);
  text.resize((text.size() + kAlignment - 1) / kAlignment * kAlignment, ' ');
  ByteWriter out;
  out.number(static_cast<std::uint64_t>(text.size()));
  out.raw(as_bytes(text));
  header.data_offset = out.bytes().size();
  return out.take();
}

Result<SafetensorsHeader> parse_safetensors_header(ByteSpan front, std::uint64_t file_size) {
  KVFS_ASSIGN(const std::string_view text, header_text(front, file_size));
  json::parse_options options;
  options.max_depth = 4;  // the header needs 3
  boost::system::error_code problem;
  const json::value root =
      json::parse(json::string_view(text.data(), text.size()), problem, {}, options);
  if (problem) return refuse("JSON", problem.message());
  if (!root.is_object()) return refuse("JSON", "not an object");

  SafetensorsHeader header;
  header.data_offset = kLengthBytes + text.size();
  for (const auto& [key, value] : root.get_object()) {
    if (key == kMetadata) {
      KVFS_TRY(read_metadata(value, header.metadata));
      continue;
    }
    KVFS_ASSIGN(auto tensor, read_entry(key, value));
    header.tensors.push_back(std::move(tensor));
  }
  std::stable_sort(header.tensors.begin(), header.tensors.end(),
                   [](const TensorEntry& a, const TensorEntry& b) {
                     return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
                   });
  KVFS_TRY(check_layout(header.tensors, file_size - header.data_offset));
  return header;
}

}  // namespace kvfs::container

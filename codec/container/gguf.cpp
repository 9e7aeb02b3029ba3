#include "codec/container/gguf.h"

#include "codec/container/gguf_parser.h"

namespace kvfs::container {
namespace {

struct TypeFacts {
  std::uint32_t number;
  std::string_view name;
  std::size_t elements;  // of a block; 0 where the type is known by name alone
  std::size_t bytes;
};

constexpr TypeFacts kTypes[] = {
    {0, "F32", 1, 4},       {1, "F16", 1, 2},     {2, "Q4_0", 32, 18},    {3, "Q4_1", 32, 20},
    {6, "Q5_0", 32, 22},    {7, "Q5_1", 32, 24},  {8, "Q8_0", 32, 34},    {9, "Q8_1", 0, 0},
    {10, "Q2_K", 0, 0},     {11, "Q3_K", 0, 0},   {12, "Q4_K", 256, 144}, {13, "Q5_K", 256, 176},
    {14, "Q6_K", 256, 210}, {15, "Q8_K", 0, 0},   {16, "IQ2_XXS", 0, 0},  {17, "IQ2_XS", 0, 0},
    {18, "IQ3_XXS", 0, 0},  {19, "IQ1_S", 0, 0},  {20, "IQ4_NL", 0, 0},   {21, "IQ3_S", 0, 0},
    {22, "IQ2_S", 0, 0},    {23, "IQ4_XS", 0, 0}, {24, "I8", 0, 0},       {25, "I16", 0, 0},
    {26, "I32", 0, 0},      {27, "I64", 0, 0},    {28, "F64", 0, 0},      {29, "IQ1_M", 0, 0},
    {30, "BF16", 1, 2},     {34, "TQ1_0", 0, 0},  {35, "TQ2_0", 0, 0},    {39, "MXFP4", 0, 0},
};

const TypeFacts* facts_of(GgmlType type) {
  for (const TypeFacts& facts : kTypes) {
    if (facts.number == static_cast<std::uint32_t>(type)) return &facts;
  }
  return nullptr;
}

}  // namespace

std::string_view name_of(GgmlType type) {
  const TypeFacts* facts = facts_of(type);
  return facts != nullptr ? facts->name : "an unknown type";
}

std::size_t block_elements(GgmlType type) {
  const TypeFacts* facts = facts_of(type);
  return facts != nullptr ? facts->elements : 0;
}

std::size_t block_bytes(GgmlType type) {
  const TypeFacts* facts = facts_of(type);
  return facts != nullptr ? facts->bytes : 0;
}

Result<std::unique_ptr<GgufFile>> GgufFile::open(const std::filesystem::path& path) {
  std::unique_ptr<GgufFile> file(new GgufFile);
  file->path_ = path;
  KVFS_ASSIGN(file->mapping_, MappedFile::open(path, "model file " + path.string()));
  KVFS_TRY(GgufParser(*file).parse());
  return file;
}

const GgufTensor* GgufFile::find_tensor(std::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found != tensor_index_.end() ? &tensors_[found->second] : nullptr;
}

namespace {

Result<const GgufValue*> value_at(const GgufFile& file, const std::string& key,
                                  std::string_view expected) {
  const auto found = file.metadata().find(key);
  if (found == file.metadata().end()) {
    return fail(ErrorCode::kNotFound, "model file " + file.path().string(),
                "metadata key '" + key + "' is missing, " + std::string(expected) + " is needed",
                "convert the model again with a current tool");
  }
  return &found->second;
}

tl::unexpected<Error> unlike(const GgufFile& file, const std::string& key,
                             std::string_view expected) {
  return fail(ErrorCode::kInvalid, "model file " + file.path().string(),
              "metadata key '" + key + "' is not " + std::string(expected),
              "convert the model again with a current tool");
}

}  // namespace

Result<std::uint64_t> GgufFile::unsigned_at(const std::string& key) const {
  constexpr std::string_view kExpected = "an unsigned number";
  KVFS_ASSIGN(const GgufValue* value, value_at(*this, key, kExpected));
  if (const auto* number = std::get_if<std::uint64_t>(value)) return *number;
  if (const auto* number = std::get_if<std::int64_t>(value); number != nullptr && *number >= 0) {
    return static_cast<std::uint64_t>(*number);
  }
  return unlike(*this, key, kExpected);
}

Result<double> GgufFile::real_at(const std::string& key) const {
  constexpr std::string_view kExpected = "a number";
  KVFS_ASSIGN(const GgufValue* value, value_at(*this, key, kExpected));
  if (const auto* number = std::get_if<double>(value)) return *number;
  if (const auto* number = std::get_if<std::uint64_t>(value)) return static_cast<double>(*number);
  if (const auto* number = std::get_if<std::int64_t>(value)) return static_cast<double>(*number);
  return unlike(*this, key, kExpected);
}

Result<bool> GgufFile::bool_at(const std::string& key) const {
  constexpr std::string_view kExpected = "a boolean";
  KVFS_ASSIGN(const GgufValue* value, value_at(*this, key, kExpected));
  if (const auto* flag = std::get_if<bool>(value)) return *flag;
  return unlike(*this, key, kExpected);
}

Result<std::string> GgufFile::string_at(const std::string& key) const {
  constexpr std::string_view kExpected = "a string";
  KVFS_ASSIGN(const GgufValue* value, value_at(*this, key, kExpected));
  if (const auto* string = std::get_if<std::string>(value)) return *string;
  return unlike(*this, key, kExpected);
}

Result<const GgufArray*> GgufFile::array_at(const std::string& key) const {
  constexpr std::string_view kExpected = "an array";
  KVFS_ASSIGN(const GgufValue* value, value_at(*this, key, kExpected));
  if (const auto* array = std::get_if<GgufArray>(value)) return array;
  return unlike(*this, key, kExpected);
}

}  // namespace kvfs::container

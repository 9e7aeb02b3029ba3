// A Hugging Face folder: config.json and, behind a zero byte, the header of model.safetensors,
// whose weights are a hole in the file. Refused, or an architecture that can be trusted.
#include <boost/json.hpp>

#include "engine/model/families/family.h"
#include "tests/fuzz/architecture_use.h"
#include "tests/fuzz/file_of_bytes.h"

using namespace kvfs;

namespace {

// Where the last tensor ends, by the header's own word.
std::uint64_t bytes_of_weights(std::string_view header) {
  boost::system::error_code broken;
  const auto json = boost::json::parse({header.data(), header.size()}, broken);
  std::uint64_t end = 0;
  if (broken || !json.is_object()) return end;
  for (const auto& [name, entry] : json.get_object()) {
    const auto offset = entry.find_pointer("/data_offsets/1", broken);
    const std::int64_t* number = offset ? offset->if_int64() : nullptr;
    if (number && *number > 0) end = std::max(end, static_cast<std::uint64_t>(*number));
  }
  return end;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::string_view config = input.substr(0, input.find('\0'));
  const std::string_view header = input.substr(std::min(config.size() + 1, size));
  const std::uint64_t length = header.size();
  std::string front(reinterpret_cast<const char*>(&length), sizeof length);
  front += header;
  fuzz::write_file("config.json", config);
  fuzz::write_file("model.safetensors", front, bytes_of_weights(header));
  const auto checkpoint = model::Checkpoint::open(fuzz::folder());
  if (!checkpoint) return 0;
  const auto architecture = model::read_architecture(**checkpoint);
  if (architecture) fuzz::check(*architecture);
  return 0;
}

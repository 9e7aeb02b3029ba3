// Files of caches: refused, or tensors of one shape with as many bytes as it says, positions that ascend,
// and ids for all of them.
#include "codec/container/cache_import.h"

using namespace kvfs;
using namespace kvfs::container;

namespace {

void check(const TensorView& tensor) {
  std::uint64_t size = size_of(tensor.dtype);
  for (const std::uint64_t dim : tensor.shape) size *= dim;
  if (tensor.shape.size() != 3 || tensor.bytes.size() != size) __builtin_trap();
  std::uint8_t sum = 0;
  for (const std::uint8_t byte : tensor.bytes) sum = static_cast<std::uint8_t>(sum + byte);
  [[maybe_unused]] volatile std::uint8_t read = sum;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::uint64_t kMostBytes = 1 << 20;
  const auto import = CacheImport::read(ByteSpan(data, size), kMostBytes);
  if (!import) {
    if (import.error().why.empty()) __builtin_trap();
    return 0;
  }
  const ImportedCache& cache = (*import)->cache();
  for (const ImportedLayer& layer : cache.layers) {
    check(layer.key);
    check(layer.value);
  }
  for (const auto& positions : cache.positions) {
    for (std::size_t i = 1; i < positions.size(); ++i) {
      if (positions[i] <= positions[i - 1]) __builtin_trap();
    }
    if (positions.back() >= std::ssize(cache.tokens)) __builtin_trap();
  }
  return 0;
}

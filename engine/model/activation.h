// Activations of feed-forward layers.
#pragma once

#include <cstdint>

namespace kvfs::model {

enum class Activation : std::uint8_t {
  kSilu,      // x · sigmoid(x)
  kGeluTanh,  // x/2 · (1 + tanh(√(2/π) · (x + 0.044715 · x³)))
  kGelu,      // x/2 · (1 + erf(x / √2))
};

}  // namespace kvfs::model

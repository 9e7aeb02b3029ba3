// What is imported, as the files of a state that assembly.h reads: nothing is copied, and what is
// of another type is converted as it is read. The bytes must outlive the views. Any thread.
#pragma once

#include <memory>
#include <vector>

#include "codec/container/cache_import.h"
#include "engine/store/views.h"

namespace kvfs::store {

std::unique_ptr<FileView> imported_tokens(const std::vector<TokenId>& tokens);

// Keys and values of one layer as `dtype`. Reading is kInvalid where a value is too large for it.
std::unique_ptr<FileView> imported_layer(const container::ImportedLayer& layer,
                                         const std::vector<Position>& positions, DType dtype);

// The layers' files that a .safetensors bundle is made of.
std::vector<std::unique_ptr<FileView>> bundled_layers(const container::SafetensorsHeader& header,
                                                      ByteSpan file, std::size_t layers);

// Whether the tensors stand as bundle_view.cpp writes them: other programs sort them.
bool has_bundle_order(const container::SafetensorsHeader& header);

}  // namespace kvfs::store

// What identifies a model whatever it is called: XXH3-128 over its files' bytes.
//
// Of a GGUF: over the file. Of a Hugging Face folder: over the names, sizes and digests of its
// weights, config.json and tokenizer files. Cached in cache_dir (if not empty) by the files' path,
// size, mtime and inode, so that the second start is instant. Any thread.
#pragma once

#include <filesystem>

#include "codec/base/ids.h"
#include "engine/model/checkpoint.h"

namespace kvfs::model {

Result<ModelFingerprint> fingerprint_of(const Checkpoint& checkpoint,
                                        const std::filesystem::path& cache_dir);

}  // namespace kvfs::model

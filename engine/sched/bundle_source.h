// A file that is to become a state, read as far as it can be without choosing a model for it, and
// what it can be held against. Part of bundle_import. Any thread; refers to the file's bytes.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "codec/container/cache_import.h"
#include "codec/container/safetensors.h"
#include "engine/sched/catalog.h"
#include "engine/store/bundles.h"

namespace kvfs::sched {

struct Bundle {
  std::optional<container::SafetensorsHeader>
      safetensors;                                // with facts: one of ours, to begin with
  std::unique_ptr<container::CacheImport> cache;  // else
  std::optional<store::StateDocument> document;   // what it says it is
  bool untouched = false;                         // as it was exported, but for what tensors hold
};
Result<Bundle> read_bundle(Catalog& catalog, ByteSpan file);

// Whether the layers are the model's; check_fits says in words, and looks at the ids too.
bool fits(const container::ImportedCache& cache, const model::ModelInfo& model);
Status check_fits(const container::ImportedCache& cache, const model::ModelInfo& model);
// Whether the tensors' numbers and shapes are those that the document says.
bool agrees(const store::StateDocument& document, const container::ImportedCache& cache);
// The ids of one of our own .safetensors.
Result<std::vector<TokenId>> bundled_tokens(const container::SafetensorsHeader& header,
                                            ByteSpan file);

}  // namespace kvfs::sched

// A version as one file: .pt (codec/container/state_bundle.h), which holds what torch's users know,
// and .safetensors, which holds every version: `input_ids` i64 [1, n_tokens], then the tensors of
// kv/layer-NNN.safetensors under "layers.NNN." without leading zeros, and as metadata the facts.
//
// The facts are state.json's keys, texts as they are and the rest as JSON; `format` is called
// `kvfs` there, since other programs know a `format` of their own.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "engine/store/assembly.h"

namespace kvfs::store {

using BundleFacts = std::map<std::string, std::string>;

// Its heads hold as many positions as each other in a layer, and layers are of keys and values:
// what all forms but .safetensors and .kvfs want.
bool fits_pt(const VersionRecord& version);
// part: one of kBundle… (kUnsupported where it does not fit). See views.h.
Result<std::unique_ptr<FileView>> bundle_view(Store& store, const VersionRecord& version,
                                              DataPart part);

Result<BundleFacts> bundle_facts(Store& store, const VersionRecord& version);
// kNotFound: they are of no state of this project.
Result<StateDocument> parse_bundle_facts(const BundleFacts& facts);

}  // namespace kvfs::store

// From a state's files back to a version: what views.h shows, read again, cut into blocks, stored.
//
// Threads: any that may wait for the disk; memory is bounded by a few blocks'. Nothing is believed: a
// header that lies, a length that state.json does not say, positions that do not ascend are
// kInvalid or kCorrupt and name the file. Blocks that were stored before a refusal are garbage that
// the collector takes.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/store/views.h"

namespace kvfs::store {

// state.json, as far as it can be said of a version: model, fingerprint, kernel class, n_tokens,
// next_pos, dtype, codec, origin; layers and, in extents, their lengths.
struct StateDocument {
  VersionRecord version;
  std::optional<ContentDigest> root;  // none: its files are taken as they are
};
Result<StateDocument> parse_state_json(std::string_view text);

struct StateFiles {
  std::unique_ptr<FileView> tokens;
  std::vector<std::unique_ptr<FileView>> layers;
  // The bytes of a token; empty: unknown, then the whole text is the first block's.
  std::function<std::string_view(TokenId)> bytes_of;
  std::string text;
  std::function<bool()> given_up;  // asked before each block; true ends it with kInterrupted
};
// kInterrupted where it is so.
Status check_given_up(const std::function<bool()>& given_up);

struct Assembled {
  VersionRecord version;  // for add_version, which works out the root
  std::vector<BlockPin> pins;
};
Result<Assembled> assemble(Store& store, const StateDocument& document, const StateFiles& files);

// What tokens first … first + count of a history spell. A run of unknown ones says so where it
// begins: "[tokens imported without ids: their text is not known]".
std::string spelled(std::span<const TokenId> history, std::size_t first, std::size_t count,
                    const std::function<std::string_view(TokenId)>& bytes_of);

// All of a file that ought to be small; kTooLarge beyond `most`.
Result<std::string> read_whole(FileView& view, std::uint64_t most, const std::string& name);

}  // namespace kvfs::store

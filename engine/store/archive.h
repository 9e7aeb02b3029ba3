// A state as one file of this project's own, .kvfs: the records of its version and its blocks, its
// chunks as they are stored, and, where they are asked for, its parameters, the files that users
// keep beside it and its snapshots. The layout stands in docs/FORMAT.md: a table, then what it
// lists, so the size is known and any range can be had without building the whole.
//
// Reading one believes nothing: every length is checked, every chunk is decoded and stored as one
// of a block that was computed here would be (what decoded to it is kept where that is how the
// store would have it), and add_version must come to the root that the archive says. Block keys are
// left out: what is imported answers for nobody.
//
// Threads: views any; the rest one that may wait for the disk. Errors: kInvalid says what is
// damaged, kUnsupported names a newer layout.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/store/views.h"

namespace kvfs::store {

struct ArchiveWishes {
  bool files = false;
  bool snapshots = false;
};

// The version alone.
Result<std::unique_ptr<FileView>> archive_view(Store& store, const VersionRecord& version);
// The state with its parameters.
Result<std::unique_ptr<FileView>> archive_view(Store& store, StateId state,
                                               const ArchiveWishes& wishes);

// What an archive lists. Numbers name what stands in the other lists.
struct ArchiveTable {
  struct Item {                         // of the data behind the table
    std::array<std::uint8_t, 16> id{};  // ChunkId or PieceId
    std::uint32_t size = 0;
  };
  struct File {
    std::string name;
    FileKind kind = FileKind::kRegular;
    std::uint32_t mode = 0600;
    std::uint64_t size = 0;
    std::int64_t modified_ns = 0;
    std::string target;
    std::vector<std::pair<std::uint64_t, std::uint32_t>> pieces;  // number in the file, which one
  };
  struct State {
    std::string name;                      // "": the state; others are its snapshots
    std::optional<std::uint32_t> version;  // none: it is empty
    std::map<std::string, std::string> params;
    std::vector<File> files;
  };
  std::vector<Item> chunks;
  std::vector<BlockRecord> blocks;      // without keys
  std::vector<VersionRecord> versions;  // their blocks: numbers
  std::vector<Item> pieces;
  std::vector<State> states;
};
Bytes encode(const ArchiveTable& table);

class Archive {
 public:
  static bool is_archive(ByteSpan file);
  // Refers to the file's bytes.
  static Result<Archive> read(ByteSpan file);

  const ArchiveTable& table() const { return table_; }
  Result<FilePiece> piece(const std::pair<std::uint64_t, std::uint32_t>& which) const;

  // Tokens' bytes by the version's model; an empty function: its text is taken as it is.
  using Speller = std::function<std::string_view(TokenId)>;
  using SpellerOf = std::function<Speller(const VersionRecord&)>;
  struct Stored {
    std::vector<VersionRecord> versions;  // with the blocks that are stored now, for add_version
    std::vector<BlockPin> pins;
  };
  // given_up: as in StateFiles.
  Result<Stored> store_blocks(Store& store, const SpellerOf& speller_of,
                              const std::function<bool()>& given_up = {}) const;

 private:
  Status add_piece(const VersionRecord& version, const Segment& segment, NewBlock& block) const;
  Status add_chunks(const std::vector<ChunkId>& ids, const chunk::ShapeClass& shape, Bytes& out,
                    std::vector<KnownEncoding>& encodings) const;
  Result<NewBlock> new_block(const VersionRecord& version, const BlockRecord& block) const;

  ArchiveTable table_;
  std::map<ChunkId, ByteSpan> chunks_;
  std::vector<ByteSpan> pieces_;
};

}  // namespace kvfs::store

// .kvfs archives: refused in words, or what they hold is stored and comes to a version whose own
// archive can be read again.
//
// An input is an archive, or u32 bytes of its table, the table, what it lists: then the digest of
// the table and the checksums of the chunks are made right, as somebody who means it would.
#include <cstring>
#include <memory>

#include "engine/store/archive.h"
#include "engine/store/archive_front.h"
#include "engine/store/digests.h"
#include "engine/store/layouts.h"
#include "engine/store/store.h"
#include "engine/store/write_transaction.h"
#include "tests/fuzz/file_of_bytes.h"

using namespace kvfs;
using namespace kvfs::store;

namespace {

constexpr int kUses = 500;  // of one store, which keeps what it was given

Store& a_store() {
  static std::unique_ptr<Store> store;
  static int uses = 0;
  if (uses++ % kUses == 0) {
    store.reset();
    const auto directory = fuzz::folder() / "store";
    std::filesystem::remove_all(directory);
    auto opened = Store::open({.directory = directory, .map_bytes = std::uint64_t{1} << 30});
    if (!opened) std::abort();
    store = *std::move(opened);
  }
  return *store;
}

void expect_words(const Error& error) {
  if (error.why.empty() || error.code == ErrorCode::kInternal) __builtin_trap();
}

// The chunks' checksums, where the table can be read.
void mend(Bytes& file, std::size_t data) {
  const auto archive = Archive::read(file);
  if (!archive) return;
  for (const ArchiveTable::Item& item : archive->table().chunks) {
    if (item.size >= kChunkHeaderBytes) {
      const std::uint64_t sum =
          hash64(ByteSpan(file).subspan(data + kChunkHeaderBytes, item.size - kChunkHeaderBytes));
      std::memcpy(file.data() + data + kChunkHeaderBytes - sizeof sum, &sum, sizeof sum);
    }
    data += item.size;
  }
}

Bytes file_of(ByteSpan input) {
  ByteReader in(input);
  const auto size = in.number<std::uint32_t>();
  if (Archive::is_archive(input) || size > in.left()) return {input.begin(), input.end()};
  const ByteSpan table = in.raw(size), rest = in.raw(in.left());
  Bytes file = archive_front(table);
  file.insert(file.end(), table.begin(), table.end());
  const std::size_t data = file.size();
  file.insert(file.end(), rest.begin(), rest.end());
  mend(file, data);
  return file;
}

void expect_readable(Store& store, const VersionRecord& version) {
  const auto view = archive_view(store, version);
  if (!view) __builtin_trap();
  Bytes whole((*view)->size());
  const auto got = (*view)->read(0, whole);
  if (!got || *got != whole.size()) __builtin_trap();
  const auto again = Archive::read(whole);
  if (!again || again->table().versions.at(0).root != version.root) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Bytes file = file_of(ByteSpan(data, size));
  const auto archive = Archive::read(file);
  if (!archive) {
    expect_words(archive.error());
    return 0;
  }
  const ArchiveTable& table = archive->table();
  for (const ArchiveTable::State& state : table.states) {
    for (const ArchiveTable::File& each : state.files) {
      for (const auto& piece : each.pieces) {
        if (const auto bytes = archive->piece(piece); !bytes) expect_words(bytes.error());
      }
    }
  }
  Store& store = a_store();
  const auto stored = archive->store_blocks(store, [](const VersionRecord&) {
    return [](TokenId token) { return std::string_view("abcdefgh").substr(token & 7); };
  });
  if (!stored) {
    expect_words(stored.error());
    return 0;
  }
  for (const VersionRecord& version : stored->versions) {
    VersionRecord made;
    const Status written = store.write([&](WriteTransaction& tx) -> Status {
      KVFS_ASSIGN(const VersionId id, tx.add_version(version));
      KVFS_TRY(tx.hold_version(id));
      KVFS_ASSIGN(made, tx.version(id));
      return {};
    });
    if (!written) {
      expect_words(written.error());
    } else {
      expect_readable(store, made);
    }
  }
  return 0;
}

#include "fs/nodes/generated_file.h"

#include <utility>

#include "fs/modes.h"
#include "fs/nodes/text_handle.h"

namespace kvfs::fs {

GeneratedFile::GeneratedFile(Ino ino, Kind kind, StateId state, Owner owner, Producer producer)
    : File(ino),
      kind_(kind),
      state_(state),
      owner_(std::move(owner)),
      producer_(std::move(producer)) {}

Result<Attributes> GeneratedFile::attributes() {
  KVFS_ASSIGN(Attributes out, owner_());
  KVFS_ASSIGN(const std::string text, producer_());
  out.size = text.size();
  return out;
}

Caching GeneratedFile::caching() const {
  if (kind_ == Kind::kChanging) return {.entry = 0, .attributes = kForThisCall};
  return {.entry = kUntilTold, .attributes = kUntilTold};
}

// cp -p and rsync copy onto what is there; a status is what it is.
void GeneratedFile::change(const Changes& changes, Done done) {
  if (kind_ == Kind::kConstant || changes.size) return Node::change(changes, std::move(done));
  done({});
}

Result<std::unique_ptr<Handle>> GeneratedFile::open(int flags) {
  KVFS_TRY(refuse_writing(flags));
  KVFS_ASSIGN(std::string text, producer_());
  const auto cache = kind_ == Kind::kConstant ? PageCache::kKept : PageCache::kNone;
  return std::make_unique<TextHandle>(std::move(text), cache);
}

GeneratedFile::Owner daemon_file(const Context& context) {
  return [&context]() -> Result<Attributes> {
    return Attributes{.mode = S_IFREG | kReadOnly,
                      .uid = context.uid,
                      .gid = context.gid,
                      .size = 0,
                      .changed_ns = context.started_ns};
  };
}

}  // namespace kvfs::fs

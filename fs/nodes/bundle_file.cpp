#include "fs/nodes/bundle_file.h"

#include <fcntl.h>

#include <array>
#include <utility>

#include "fs/incoming.h"

namespace kvfs::fs {
namespace {

constexpr std::array<std::pair<std::string_view, VersionPart>, 5> kBundles{
    {{".pt", VersionPart::kBundlePt},
     {".safetensors", VersionPart::kBundleSafetensors},
     {".pkl", VersionPart::kBundlePkl},
     {".npz", VersionPart::kBundleNpz},
     {".kvfs", VersionPart::kBundleKvfs}}};

}  // namespace

std::optional<VersionPart> bundle_part(std::string_view name) {
  for (const auto& [suffix, part] : kBundles) {
    if (name.ends_with(suffix)) return part;
  }
  return std::nullopt;
}

bool BundleFile::fresh() {
  const auto record = context().store.state(state());
  return record && record->version == version() &&
         context().incoming.find({container_, place().name}) == nullptr;
}

void BundleFile::change(const Changes& changes, Done done) {
  if (!changes.size) return VersionFile::change(changes, std::move(done));
  if (*changes.size == 0) return replace({}, std::move(done));
  done(fail(ErrorCode::kUnsupported, "truncating a bundle", "it is replaced whole",
            "write it under a temporary name and rename that"));
}

// Who holds this one all the same (an NFS handle) writes the new one through it.
Result<std::unique_ptr<Handle>> BundleFile::open(int flags) {
  if ((flags & O_ACCMODE) == O_RDONLY && (flags & O_TRUNC) == 0) return VersionFile::open(flags);
  const auto file = context().incoming.find({container_, place().name});
  if (!file) return fail(ErrorCode::kNotFound, "writing a bundle", "it has become a state");
  return file->open(flags);
}

void BundleFile::prepare(int flags, const Caller& caller, Done done) {
  const bool writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0;
  if (writes && context().incoming.find({container_, place().name})) return done({});
  if ((flags & O_TRUNC) != 0) return replace(caller, std::move(done));
  if ((flags & O_ACCMODE) == O_RDONLY) return done({});
  done(fail(ErrorCode::kUnsupported, "writing into a bundle", "it is replaced whole",
            "open it with O_TRUNC, or write another file and rename it"));
}

void BundleFile::replace(const Caller& caller, Done done) {
  auto file = IncomingBundle::create(context(), {container_, place().name}, caller);
  if (!file) return done(fail(file.error()));
  context().incoming.add(*std::move(file));
  done(fail(ErrorCode::kNotFound, "writing a bundle", "a new one stands in its place"));
}

}  // namespace kvfs::fs

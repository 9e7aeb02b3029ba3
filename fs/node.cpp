#include "fs/node.h"

namespace kvfs::fs {
namespace {

tl::unexpected<Error> refused(std::string what, std::string why) {
  return fail(ErrorCode::kPermission, std::move(what), std::move(why));
}

}  // namespace

void Node::change(const Changes& /*changes*/, Done done) {
  done(refused("changing attributes", "the daemon makes this file"));
}

Result<std::string> Node::link_target() {
  return fail(ErrorCode::kInvalid, "reading a link", "it is none");
}

Result<std::optional<std::uint64_t>> Handle::seek(std::uint64_t offset, bool data) {
  return data ? offset : ~std::uint64_t{0};
}

void Handle::write(std::uint64_t /*offset*/, ByteSpan /*bytes*/, Answer<std::size_t> done) {
  done(refused("writing", "the file is read-only"));
}

Status Handle::truncate(std::uint64_t /*size*/) {
  return refused("truncating", "the file is read-only");
}

void Handle::take(const VersionSource& /*source*/, std::uint64_t /*source_offset*/,
                  std::uint64_t /*offset*/, std::uint64_t /*size*/, Answer<std::size_t> done) {
  done(fail(ErrorCode::kUnsupported, "sharing a file", "it has to be copied"));
}

Result<Ino> Directory::parent_ino() {
  KVFS_ASSIGN(const NodePtr node, parent());
  return node->ino();
}

Result<store::FilePlace> Directory::file_place(const std::string& name) {
  return refused("moving a file to " + name, "the daemon makes the files of this directory");
}

void Directory::make_directory(const std::string& name, const Caller& /*caller*/,
                               Answer<NodePtr> done) {
  done(refused("mkdir " + name, "states live under states/"));
}

void Directory::remove_directory(const std::string& name, Done done) {
  done(refused("rmdir " + name, "the daemon makes it"));
}

void Directory::remove_file(const std::string& name, Done done) {
  done(refused("unlinking " + name, "the daemon makes it"));
}

void Directory::create_file(const std::string& name, const Creation& /*how*/,
                            Answer<Created> done) {
  done(refused("creating " + name, "the daemon makes the files of this directory"));
}

void Directory::make_symlink(const std::string& name, const std::string& /*target*/,
                             const Caller& /*caller*/, Answer<NodePtr> done) {
  done(refused("linking " + name, "links live beside states"));
}

void Directory::rename(const std::string& name, Directory& /*to*/, const std::string& /*new_name*/,
                       bool /*replace*/, Done done) {
  done(refused("renaming " + name, "the daemon makes it"));
}

}  // namespace kvfs::fs

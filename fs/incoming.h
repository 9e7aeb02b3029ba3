// Bundles on their way in: files that users write into bundles/, which become states when they are
// closed, or renamed from a temporary name. Until then they are kept in files without a name on the
// store's disk, and are gone with the daemon: what was not closed is not a state.
//
// Any thread; one lock, held for no call to anybody else. Ownership: a file is shared by this table
// (while it is listed), the node table and handles.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "fs/node.h"

namespace kvfs::fs {

struct Context;

struct BundlePlace {
  StateId container;  // none: bundles/ itself
  std::string name;
  auto operator<=>(const BundlePlace&) const = default;
};

class IncomingBundle : public File {
 public:
  // kNoSpace, kIo: no file can be had on the store's disk.
  static Result<std::shared_ptr<IncomingBundle>> create(Context& context, BundlePlace place,
                                                        const Caller& caller);
  ~IncomingBundle() override;

  Result<Attributes> attributes() override;
  void change(const Changes& changes, Done done) override;
  Result<std::unique_ptr<Handle>> open(int flags) override;

  BundlePlace place() const;
  void move_to(BundlePlace place);
  // What was written since becomes the state that the name says; nothing to do for a temporary name
  // or where nothing was. Answers when that is so, or why not.
  void settle(Done done);
  // The same under a name that it is being renamed to.
  void settle_as(BundlePlace place, Done done);

  // The handle's side.
  void opened(int more);  // one more, or one less
  Result<Bytes> read(std::uint64_t offset, std::size_t size) const;
  Result<std::size_t> write(std::uint64_t offset, ByteSpan bytes, bool appends);
  Status resize(std::uint64_t size);

 private:
  IncomingBundle(Context& context, Ino ino, BundlePlace place, const Caller& caller, int fd);
  Result<StateId> import(const BundlePlace& place);
  Status begin_change();  // with changing_ held; kBusy while it is read

  Context& context_;
  const Caller owner_;
  const int fd_;
  std::mutex changing_;       // held by who changes its bytes; taken before the other
  mutable std::mutex mutex_;  // guards everything below
  BundlePlace place_;
  std::int64_t modified_ns_ = 0;
  int open_ = 0;
  bool times_set_ = false;  // by a user, after the last write
  bool changed_ = false;    // since it was last made a state, or was refused
  bool reading_ = false;    // it is being made a state: nothing of it may change
};

class Incoming {
 public:
  std::shared_ptr<IncomingBundle> find(const BundlePlace& place) const;
  std::vector<std::shared_ptr<IncomingBundle>> in(StateId container) const;
  void add(std::shared_ptr<IncomingBundle> file);  // instead of what has its name
  // Only while it is this one that is listed there.
  void remove(const BundlePlace& place, const IncomingBundle* file);
  void move(const BundlePlace& from, const BundlePlace& to);

 private:
  mutable std::mutex mutex_;  // guards files_
  std::map<BundlePlace, std::shared_ptr<IncomingBundle>> files_;
};

// Names that programs use on the way to a bundle's: ".a.pt.Xq3", "a.pt.part", "a.pt~".
bool is_temporary_bundle(std::string_view name);
// kInvalid: the name is neither a bundle's nor a temporary one.
Status check_bundle_name(const std::string& name);
// Where why an import was refused is said: the state's `status`, else the container's, else the
// mount's.
void note_refusal(Context& context, const BundlePlace& place, const Status& status);

}  // namespace kvfs::fs

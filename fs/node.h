// What a kind of file is: the base of everything in fs/nodes/. No libfuse here: operations.cpp
// translates between the kernel's protocol and these classes.
//
// Threads: any FUSE worker may call any method of any node at any time. A method may read the store
// (short) and must not wait for anything else: what takes longer is answered later, through the
// Answer it was given, from any thread, exactly once. Failure is an Error; errno.cpp maps it.
// Ownership: nodes are shared by the node table (while the kernel knows them), by requests in
// flight, and by open handles. A node's Context outlives it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "codec/base/bytes.h"
#include "codec/base/result.h"
#include "fs/inode.h"

namespace kvfs::fs {

class Directory;
class File;
class Node;
using NodePtr = std::shared_ptr<Node>;

template <class T>
using Answer = std::function<void(Result<T>)>;
using Done = Answer<void>;

struct Attributes {
  std::uint32_t mode = 0;  // with the file type
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint64_t size = 0;
  std::int64_t changed_ns = 0;                // since the epoch
  std::optional<std::int64_t> modified_ns{};  // of the contents, where that is told apart
  std::optional<std::uint64_t> blocks{};      // of 512 bytes, where they are fewer than size says
  std::uint32_t links = 1;
};

// How long the kernel may believe an entry and attributes without asking; seconds.
struct Caching {
  double entry = 0;
  double attributes = 0;
};
// For the call that asked: the name is looked up again each time, and its attributes come along.
inline constexpr double kForThisCall = 0.001;
inline constexpr double kUntilTold = 3600;  // explicitly invalidated, or never changes
inline constexpr double kOfStates = 600;    // explicitly invalidated too, by all who change states

struct EntryPlace {
  Ino directory = 0;
  std::string name;
};

struct Caller {
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::int32_t process = 0;  // or its thread; 0: not known here
};

// How a name is created.
struct Creation {
  int flags = 0;           // of open()
  std::uint32_t mode = 0;  // permission bits, without the umask's
  Caller caller;
};

// What setattr asks for. Times are kept where a file has its own.
struct Changes {
  std::optional<std::uint32_t> mode;  // permission bits
  std::optional<std::uint32_t> uid;
  std::optional<std::uint32_t> gid;
  std::optional<std::uint64_t> size;
  std::optional<std::int64_t> modified_ns;
};

class Node : public std::enable_shared_from_this<Node> {
 public:
  explicit Node(Ino ino) : ino_(ino) {}
  virtual ~Node() = default;
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  Ino ino() const { return ino_; }
  virtual Result<Attributes> attributes() = 0;
  virtual Caching caching() const { return {}; }
  virtual StateId state() const { return {}; }  // the state it is part of
  // Where its entry is, for nodes whose entries the kernel keeps until told.
  virtual std::optional<EntryPlace> entry() const { return std::nullopt; }
  // False: its name stands for another node now, and the kernel has to be told.
  virtual bool fresh() { return true; }

  virtual void change(const Changes& changes, Done done);  // kPermission unless it is overridden
  virtual Result<std::string> link_target();               // kInvalid: it is no symbolic link
  virtual Directory* as_directory() { return nullptr; }
  virtual File* as_file() { return nullptr; }

 private:
  const Ino ino_;
};

// A read that is answered once, now or later; the first answer wins.
class ReadAnswer {
 public:
  virtual ~ReadAnswer() = default;
  virtual void data(ByteSpan bytes) = 0;  // none: the end of the file
  virtual void fail(const Error& error) = 0;
  // From now on an interrupt or the end of the mount answers it. False: that has happened already.
  virtual bool park() = 0;
  // Called once when it is answered so, at once if it was: takes back whatever would have answered.
  virtual void on_drop(std::function<void()> drop) = 0;
  virtual bool answered() const = 0;
};

// A file of a version, for those who share it instead of copying.
struct VersionSource {
  VersionId version;
  store::DataPart part = store::DataPart::kStateJson;
  std::uint64_t size = 0;
};

enum class PageCache { kNone /* direct_io */, kUsual, kKept /* contents never change */ };

// What an open file or directory keeps. Shared by the kernel (until it releases it) and by the
// operations that use it.
class Opened : public std::enable_shared_from_this<Opened> {
 public:
  virtual ~Opened() = default;
};

// An open file. Calls on one handle may come from several workers at once.
class Handle : public Opened {
 public:
  virtual PageCache page_cache() const { return PageCache::kUsual; }
  virtual void read(std::uint64_t offset, std::size_t size, std::shared_ptr<ReadAnswer> answer) = 0;
  virtual void write(std::uint64_t offset, ByteSpan bytes, Answer<std::size_t> done);
  virtual Status truncate(std::uint64_t size);
  virtual void flush(Done done) { done({}); }  // a descriptor on it was closed
  virtual void sync(Done done) { done({}); }   // fsync
  // The next data, or hole, at or after offset; beyond the end: at the end; nothing: no more data.
  virtual Result<std::optional<std::uint64_t>> seek(std::uint64_t offset, bool data);
  virtual void release() {}  // the last was
  virtual bool allows_copy_file_range() const { return true; }
  virtual std::optional<VersionSource> source() const { return std::nullopt; }
  // copy_file_range from a version's file; kUnsupported: it has to be copied.
  virtual void take(const VersionSource& source, std::uint64_t source_offset, std::uint64_t offset,
                    std::uint64_t size, Answer<std::size_t> done);
};

class File : public Node {
 public:
  using Node::Node;
  File* as_file() override { return this; }
  // Before open(): what takes a while. kNotFound: its name stands for another file now, which the
  // kernel looks up and opens instead.
  virtual void prepare(int /*flags*/, const Caller& /*caller*/, Done done) { done({}); }
  virtual Result<std::unique_ptr<Handle>> open(int flags) = 0;
};

struct Entry {
  std::string name;
  bool directory = false;
  Ino ino = 0;
  bool symlink = false;
};

// What may be renamed from and into a directory; kinds do not mix (EXDEV).
enum class Holds { kNothing, kStates /* and files */, kSnapshots, kStagedFiles, kBundles };

struct Created {
  std::shared_ptr<Node> node;
  std::unique_ptr<Handle> handle;
};

class Directory : public Node {
 public:
  using Node::Node;
  Directory* as_directory() override { return this; }

  virtual Result<NodePtr> parent() = 0;
  virtual Result<Ino> parent_ino();  // spares the node
  virtual Result<NodePtr> lookup(std::string_view name) = 0;
  virtual Result<std::vector<Entry>> list() = 0;  // without "." and ".."
  // Whether a listing brings the entry's attributes along: not where those who list rarely want
  // them.
  virtual bool lists_attributes(const Entry& /*entry*/) const { return true; }
  // Whether what it has just listed stays until the kernel changes it by a request to this very
  // directory, or is told (Context::names_changed): else the kernel may not keep the listing.
  virtual bool at_rest(const std::vector<Entry>& /*listed*/) { return false; }
  virtual Holds holds() const { return Holds::kNothing; }
  // Whether the name is there, but not for who creates it: the daemon made it in a new state, or in
  // one that is being copied.
  virtual bool yields(std::string_view /*name*/) { return false; }
  // Where a user's file of that name is kept.
  virtual Result<store::FilePlace> file_place(const std::string& name);

  // kPermission unless they are overridden.
  virtual void make_directory(const std::string& name, const Caller& caller, Answer<NodePtr> done);
  virtual void remove_directory(const std::string& name, Done done);
  virtual void remove_file(const std::string& name, Done done);
  virtual void create_file(const std::string& name, const Creation& how, Answer<Created> done);
  virtual void make_symlink(const std::string& name, const std::string& target,
                            const Caller& caller, Answer<NodePtr> done);
  // replace: false says kExists when new_name is taken. `to` holds the same kind of thing.
  virtual void rename(const std::string& name, Directory& to, const std::string& new_name,
                      bool replace, Done done);
};

}  // namespace kvfs::fs

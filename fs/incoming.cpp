#include "fs/incoming.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

#include "codec/base/log.h"
#include "codec/container/mapped_file.h"
#include "engine/sched/bundle_import.h"
#include "fs/context.h"
#include "fs/scratch_names.h"

namespace kvfs::fs {
namespace {

constexpr std::chrono::milliseconds kMoment{1000};

tl::unexpected<Error> disk_error(const std::string& what, int number) {
  const ErrorCode code = number == ENOSPC || number == EDQUOT ? ErrorCode::kNoSpace
                         : number == EFBIG                    ? ErrorCode::kTooLarge
                                                              : ErrorCode::kIo;
  return fail(code, what, std::strerror(number), "make room on the store's disk");
}

// Counts as closed when it was written and a descriptor goes: a shell closes a copy of one before
// anything is written.
class IncomingHandle : public Handle {
 public:
  IncomingHandle(std::shared_ptr<IncomingBundle> file, bool appends)
      : file_(std::move(file)), appends_(appends) {
    file_->opened(1);
  }

  void read(std::uint64_t offset, std::size_t size, std::shared_ptr<ReadAnswer> answer) override {
    const auto bytes = file_->read(offset, size);
    if (!bytes) return answer->fail(bytes.error());
    answer->data(*bytes);
  }
  void write(std::uint64_t offset, ByteSpan bytes, Answer<std::size_t> done) override {
    done(file_->write(offset, bytes, appends_));
  }
  Status truncate(std::uint64_t size) override { return file_->resize(size); }
  void flush(Done done) override { file_->settle(std::move(done)); }
  void release() override {  // a mapping's last pages come after the close
    file_->settle([](const Status&) {});
    file_->opened(-1);
  }

 private:
  const std::shared_ptr<IncomingBundle> file_;  // shared with its other handles
  const bool appends_;
};

}  // namespace

// --- names ---------------------------------------------------------------------------------------

bool is_temporary_bundle(std::string_view name) {
  if (is_scratch_name(name)) return true;
  if (!sched::bundle_stem(name).empty()) return false;
  // "a.pt.Xq3": a bundle's name with more behind it.
  for (std::size_t dot = name.rfind('.'); dot != std::string_view::npos && dot > 0;
       dot = name.rfind('.', dot - 1)) {
    if (!sched::bundle_stem(name.substr(0, dot)).empty()) return true;
  }
  return false;
}

Status check_bundle_name(const std::string& name) {
  if (is_temporary_bundle(name) || !sched::bundle_stem(name).empty()) return {};
  return fail(ErrorCode::kInvalid, "bundle", "its name does not end as one's",
              "use NAME.kvfs, .pt, .safetensors, .pkl, .pkl.gz or .npz");
}

void note_refusal(Context& context, const BundlePlace& place, const Status& status) {
  const std::string subject = "bundles/" + place.name;
  const std::string stem(sched::bundle_stem(place.name));
  const auto state = context.store.lookup(place.container, stem);
  const bool there = state && state->kind == store::NameEntry::Kind::kState;
  if (status) {
    for (const StateId id : {there ? state->state : StateId{}, place.container, StateId{}}) {
      context.refusals.clear(id, subject);
    }
    return;
  }
  context.refusals.note(there ? state->state : place.container, subject, status.error());
  KVFS_INFO("{}: {}", subject, status.error().message());
}

// --- a file --------------------------------------------------------------------------------------

Result<std::shared_ptr<IncomingBundle>> IncomingBundle::create(Context& context, BundlePlace place,
                                                               const Caller& caller) {
  KVFS_TRY(check_bundle_name(place.name));
  std::error_code none;
  const std::filesystem::path directory =
      context.store_disk.empty() ? std::filesystem::temp_directory_path(none) : context.store_disk;
  std::string path = (directory / "incoming-XXXXXX").string();
  const int fd = ::mkostemp(path.data(), O_CLOEXEC);
  if (fd < 0) return disk_error("bundle " + place.name, errno);
  ::unlink(path.c_str());
  return std::shared_ptr<IncomingBundle>(
      new IncomingBundle(context, context.inos.next(), std::move(place), caller, fd));
}

IncomingBundle::IncomingBundle(Context& context, Ino ino, BundlePlace place, const Caller& caller,
                               int fd)
    : File(ino),
      context_(context),
      owner_(caller),
      fd_(fd),
      place_(std::move(place)),
      modified_ns_(now_ns()) {}

IncomingBundle::~IncomingBundle() { ::close(fd_); }

Result<Attributes> IncomingBundle::attributes() {
  struct stat st {};
  if (::fstat(fd_, &st) != 0) return disk_error("a bundle", errno);
  const std::lock_guard lock(mutex_);
  return Attributes{.mode = S_IFREG | 0600,
                    .uid = owner_.uid,
                    .gid = owner_.gid,
                    .size = static_cast<std::uint64_t>(st.st_size),
                    .changed_ns = modified_ns_};
}

// Mode and owner will be the state's.
void IncomingBundle::change(const Changes& changes, Done done) {
  Status status;
  if (changes.size) status = resize(*changes.size);
  if (changes.modified_ns) {
    const std::lock_guard lock(mutex_);
    modified_ns_ = *changes.modified_ns;
    times_set_ = true;
  }
  done(std::move(status));
}

Result<std::unique_ptr<Handle>> IncomingBundle::open(int flags) {
  if ((flags & O_TRUNC) != 0) KVFS_TRY(resize(0));
  return std::make_unique<IncomingHandle>(
      std::static_pointer_cast<IncomingBundle>(shared_from_this()), (flags & O_APPEND) != 0);
}

BundlePlace IncomingBundle::place() const {
  const std::lock_guard lock(mutex_);
  return place_;
}

void IncomingBundle::move_to(BundlePlace place) {
  const std::lock_guard lock(mutex_);
  place_ = std::move(place);
}

// Made and never written it vanishes after a moment: its maker may open it again to write.
void IncomingBundle::opened(int more) {
  {
    const std::lock_guard lock(mutex_);
    open_ += more;
    if (open_ > 0 || is_temporary_bundle(place_.name)) return;
  }
  context_.chores.post_after(kMoment, [weak = weak_from_this(), alive = context_.alive()] {
    const auto self = std::static_pointer_cast<IncomingBundle>(weak.lock());
    if (!self) return;
    const BundlePlace place = self->place();
    {
      const std::lock_guard lock(self->mutex_);
      if (self->open_ > 0 || self->reading_ || is_temporary_bundle(place.name)) return;
    }
    alive->incoming.remove(place, self.get());
  });
}

Result<Bytes> IncomingBundle::read(std::uint64_t offset, std::size_t size) const {
  Bytes out(size);
  std::size_t got = 0;
  while (got < size) {
    const ssize_t n = ::pread(fd_, out.data() + got, size - got, static_cast<off_t>(offset + got));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return disk_error("reading a bundle", errno);
    if (n == 0) break;
    got += static_cast<std::size_t>(n);
  }
  out.resize(got);
  return out;
}

Status IncomingBundle::begin_change() {
  const std::lock_guard lock(mutex_);
  if (reading_) {
    return fail(ErrorCode::kBusy, "bundle " + place_.name, "it is just being made a state",
                "write it when that is done");
  }
  changed_ = true;
  times_set_ = false;
  modified_ns_ = now_ns();
  return {};
}

// To the page cache.
Result<std::size_t> IncomingBundle::write(std::uint64_t offset, ByteSpan bytes, bool appends) {
  const std::lock_guard one(changing_);
  KVFS_TRY(begin_change());
  if (appends) {
    struct stat st {};
    if (::fstat(fd_, &st) != 0) return disk_error("writing a bundle", errno);
    offset = static_cast<std::uint64_t>(st.st_size);
  }
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n =
        ::pwrite(fd_, bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return disk_error("writing a bundle", errno);
    done += static_cast<std::size_t>(n);
  }
  return done;
}

Status IncomingBundle::resize(std::uint64_t size) {
  const std::lock_guard one(changing_);
  struct stat st {};
  if (::fstat(fd_, &st) == 0 && static_cast<std::uint64_t>(st.st_size) == size) return {};
  KVFS_TRY(begin_change());
  if (::ftruncate(fd_, static_cast<off_t>(size)) != 0) return disk_error("a bundle", errno);
  return {};
}

// --- becoming a state ----------------------------------------------------------------------------

Result<StateId> IncomingBundle::import(const BundlePlace& place) {
  // It has no other name.
  KVFS_ASSIGN(const auto mapped, container::MappedFile::open("/proc/self/fd/" + std::to_string(fd_),
                                                             "bundle " + place.name));
  sched::BundleImport wanted{.file = mapped.bytes(),
                             .parent = place.container,
                             .name = std::string(sched::bundle_stem(place.name)),
                             .owner = {.uid = owner_.uid, .gid = owner_.gid}};
  {
    const std::lock_guard lock(mutex_);
    if (times_set_) wanted.modified_ns = modified_ns_;
  }
  return sched::import_bundle(context_.store, context_.scheduler, context_.catalog, wanted);
}

void IncomingBundle::settle(Done done) {
  const BundlePlace now = place();
  if (is_temporary_bundle(now.name)) return done({});
  settle_as(now, std::move(done));
}

void IncomingBundle::settle_as(BundlePlace place, Done done) {
  const auto begun = [&]() -> Result<bool> {
    const std::lock_guard one(changing_);
    const std::lock_guard lock(mutex_);
    if (reading_) return fail(ErrorCode::kBusy, "bundle " + place.name, "it is being read");
    if (!changed_ && place == place_) return false;
    changed_ = false;
    return reading_ = true;
  }();
  if (!begun || !*begun) return done(begun ? Status() : fail(begun.error()));
  auto self = std::static_pointer_cast<IncomingBundle>(shared_from_this());
  context_.arriving.post(
      [self, alive = context_.alive(), place = std::move(place), done = std::move(done)] {
        const auto state = self->import(place);
        const Status status = state ? Status() : fail(state.error());
        note_refusal(*alive, place, status);
        const BundlePlace was = self->place();
        {
          const std::lock_guard lock(self->mutex_);
          self->reading_ = false;
        }
        if (status || was == place) alive->incoming.remove(was, self.get());
        if (status) {
          for (const Ino ino : {ino_of(Fixed::kStates), ino_of(Fixed::kBundles)}) {
            alive->background_notifier.attributes(ino);
          }
        }
        done(status);
      });
}

// --- the table -----------------------------------------------------------------------------------

std::shared_ptr<IncomingBundle> Incoming::find(const BundlePlace& place) const {
  const std::lock_guard lock(mutex_);
  const auto it = files_.find(place);
  return it == files_.end() ? nullptr : it->second;
}

std::vector<std::shared_ptr<IncomingBundle>> Incoming::in(StateId container) const {
  std::vector<std::shared_ptr<IncomingBundle>> out;
  const std::lock_guard lock(mutex_);
  for (auto it = files_.lower_bound({container, {}});
       it != files_.end() && it->first.container == container; ++it) {
    out.push_back(it->second);
  }
  return out;
}

void Incoming::add(std::shared_ptr<IncomingBundle> file) {
  BundlePlace place = file->place();
  const std::lock_guard lock(mutex_);
  files_.insert_or_assign(std::move(place), std::move(file));
}

void Incoming::remove(const BundlePlace& place, const IncomingBundle* file) {
  std::shared_ptr<IncomingBundle> dropped;  // its descriptor closes outside the lock
  const std::lock_guard lock(mutex_);
  const auto it = files_.find(place);
  if (it == files_.end() || it->second.get() != file) return;
  dropped = std::move(it->second);
  files_.erase(it);
}

void Incoming::move(const BundlePlace& from, const BundlePlace& to) {
  const std::lock_guard lock(mutex_);
  auto moved = files_.extract(from);
  if (!moved) return;
  files_.erase(to);
  moved.key() = to;
  moved.mapped()->move_to(to);
  files_.insert(std::move(moved));
}

}  // namespace kvfs::fs

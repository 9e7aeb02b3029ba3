#include "fs/staged_file.h"

#include <fcntl.h>

#include <algorithm>
#include <utility>

#include "fs/context.h"
#include "fs/modes.h"
#include "fs/scratch_names.h"
#include "fs/spooler.h"

namespace kvfs::fs {
namespace {

class StagedHandle : public Handle {
 public:
  StagedHandle(Context& context, std::shared_ptr<StagedFile> file, StagedFile::Writer writer)
      : context_(context), file_(std::move(file)), writer_(writer) {}

  void read(std::uint64_t offset, std::size_t size, std::shared_ptr<ReadAnswer> answer) override {
    Bytes bytes(size);
    bytes.resize(file_->read(offset, bytes));
    answer->data(bytes);
  }

  void write(std::uint64_t offset, ByteSpan bytes, Answer<std::size_t> done) override {
    Result<std::size_t> written = [&] {
      const std::lock_guard lock(mutex_);
      return file_->write(writer_, offset, bytes);
    }();
    done(std::move(written));
  }

  Status truncate(std::uint64_t size) override {
    const std::lock_guard lock(mutex_);
    return file_->resize(writer_, size);
  }

  void flush(Done done) override {
    const bool verdict = [&] {
      const std::lock_guard lock(mutex_);
      return writer_.wrote;
    }();
    done(verdict ? spooler::closed(context_, file_) : Status{});
  }

  void release() override {
    file_->released(writer_);
    spooler::released(context_, file_, writer_);
  }

 private:
  Context& context_;
  const std::shared_ptr<StagedFile> file_;
  std::mutex mutex_;  // guards writer_; taken before the file's
  StagedFile::Writer writer_;
};

tl::unexpected<Error> too_large(const std::string& name) {
  return fail(ErrorCode::kTooLarge, "prompt " + name,
              "it is larger than " + std::to_string(Staging::kFileBytes >> 20) + " MiB",
              "feed it in parts");
}

}  // namespace

StagedFile::StagedFile(Context& context, const Place& place, std::string name)
    : File(context.inos.next()),
      context_(context),
      state_(place.state),
      place_(place),
      name_(std::move(name)),
      changed_ns_(now_ns()) {}

StagedFile::StagedFile(Context& context, const Place& place, std::string name, std::string prompt)
    : StagedFile(context, place, std::move(name)) {
  content_ = std::move(prompt);
  phase_ = Phase::kSubmitted;
  announced_ = true;
}

StagedFile::~StagedFile() { context_.staging.give(counted_); }

Result<Attributes> StagedFile::attributes() {
  Attributes out;
  Place place;
  {
    const std::lock_guard lock(mutex_);
    out.size = content_.size();
    out.changed_ns = changed_ns_;
    place = place_;
  }
  KVFS_ASSIGN(const store::StateRecord state, context_.store.state(place.state));
  out.mode = file_mode(state, kReadWrite);
  out.uid = state.uid;
  out.gid = state.gid;
  return out;
}

// Mode and owner are the state's: editors and cp set them and need not be told so.
void StagedFile::change(const Changes& changes, Done done) {
  Status status;
  if (changes.size) {
    Writer writer;
    status = resize(writer, *changes.size);
    released(writer);
  }
  if (changes.modified_ns) {
    const std::lock_guard lock(mutex_);
    changed_ns_ = *changes.modified_ns;
  }
  done(std::move(status));
}

Result<std::unique_ptr<Handle>> StagedFile::open(int flags) {
  Writer writer;
  writer.may_write = (flags & O_ACCMODE) != O_RDONLY;
  writer.appends = (flags & O_APPEND) != 0;
  if (writer.may_write) {
    const std::lock_guard lock(mutex_);
    KVFS_TRY(writable());
    if ((flags & O_TRUNC) != 0) {
      if (!content_.empty()) ++revision_;
      content_.clear();
      changed_ns_ = now_ns();
    }
    writer.empties = (flags & (O_TRUNC | O_EXCL)) != 0;
    ++open_;
  }
  auto self = std::static_pointer_cast<StagedFile>(shared_from_this());
  return std::make_unique<StagedHandle>(context_, std::move(self), writer);
}

Place StagedFile::place() const {
  const std::lock_guard lock(mutex_);
  return place_;
}

std::string StagedFile::name() const {
  const std::lock_guard lock(mutex_);
  return name_;
}

std::string StagedFile::content() const {
  const std::lock_guard lock(mutex_);
  return content_;
}

std::int64_t StagedFile::changed_ns() const {
  const std::lock_guard lock(mutex_);
  return changed_ns_;
}

std::uint64_t StagedFile::revision() const {
  const std::lock_guard lock(mutex_);
  return revision_;
}

StagedFile::Phase StagedFile::phase() const {
  const std::lock_guard lock(mutex_);
  return phase_;
}

bool StagedFile::advance(Phase expected, Phase next) {
  const std::lock_guard lock(mutex_);
  if (phase_ != expected) return false;
  phase_ = next;
  return true;
}

bool StagedFile::move_to(const Place& place, const std::string& name) {
  const std::lock_guard lock(mutex_);
  if (phase_ != Phase::kStaged) return false;
  place_ = place;
  name_ = name;
  verdict_.reset();
  return true;
}

std::optional<StagedFile::Verdict> StagedFile::verdict() const {
  const std::lock_guard lock(mutex_);
  return verdict_;
}

void StagedFile::set_verdict(Verdict verdict) {
  const std::lock_guard lock(mutex_);
  verdict_ = std::move(verdict);
}

bool StagedFile::set_announced(bool announced) {
  const std::lock_guard lock(mutex_);
  return std::exchange(announced_, announced);
}

bool StagedFile::written() const {
  const std::lock_guard lock(mutex_);
  return written_;
}

bool StagedFile::being_written() const {
  const std::lock_guard lock(mutex_);
  return writing_ > 0;
}

std::optional<Error> StagedFile::failed() const {
  const std::lock_guard lock(mutex_);
  return failed_;
}

bool StagedFile::open_for_writing() const {
  const std::lock_guard lock(mutex_);
  return open_ > 0;
}

void StagedFile::want_cancel() {
  const std::lock_guard lock(mutex_);
  cancel_wanted_ = true;
}

bool StagedFile::cancel_wanted() const {
  const std::lock_guard lock(mutex_);
  return cancel_wanted_;
}

std::size_t StagedFile::read(std::uint64_t offset, MutableByteSpan out) const {
  const std::lock_guard lock(mutex_);
  if (offset >= content_.size()) return 0;
  const std::size_t size = std::min<std::size_t>(out.size(), content_.size() - offset);
  std::copy_n(content_.data() + offset, size, out.data());
  return size;
}

Status StagedFile::writable() const {
  if (phase_ == Phase::kStaged || phase_ == Phase::kGone) return {};
  return fail(ErrorCode::kBusy, "writing " + name_, "its job is not finished yet",
              "choose another name, wait for it, or remove it to cancel the job");
}

Status StagedFile::room_for(std::uint64_t size) {
  if (size > Staging::kFileBytes) return too_large(name_);
  if (size <= counted_) return {};
  const std::uint64_t wanted = std::min(std::max(size, 2 * counted_), Staging::kFileBytes);
  if (!context_.staging.take(wanted - counted_)) {
    return fail(ErrorCode::kNoSpace, "prompt " + name_,
                "files being written into spools take all the memory there is for them",
                "remove some, or wait for their jobs");
  }
  counted_ = wanted;
  return {};
}

void StagedFile::touched(Writer& writer) {
  if (!writer.wrote) ++writing_;
  writer.wrote = true;
  written_ = true;
  ++revision_;
  changed_ns_ = now_ns();
}

Result<std::size_t> StagedFile::write(Writer& writer, std::uint64_t offset, ByteSpan bytes) {
  const std::lock_guard lock(mutex_);
  KVFS_TRY(writable());
  if (writer.appends) offset = content_.size();
  touched(writer);
  if (const Status room = room_for(offset + bytes.size()); !room) {
    writer.failed = true;
    failed_ = room.error();
    return fail(room.error());
  }
  if (content_.size() < offset + bytes.size()) content_.resize(offset + bytes.size());
  std::copy(bytes.begin(), bytes.end(), content_.begin() + static_cast<std::ptrdiff_t>(offset));
  return bytes.size();
}

Status StagedFile::resize(Writer& writer, std::uint64_t size) {
  const std::lock_guard lock(mutex_);
  KVFS_TRY(writable());
  KVFS_TRY(room_for(size));
  touched(writer);
  content_.resize(size);
  return {};
}

void StagedFile::released(const Writer& writer) {
  const std::lock_guard lock(mutex_);
  if (writer.may_write) --open_;
  if (writer.wrote) --writing_;
}

}  // namespace kvfs::fs

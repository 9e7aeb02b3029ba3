// A file that a user writes into a spool or params/, kept in memory: the prompt on its way to a
// job, or an editor's scratch file. What closing, releasing or renaming it means is spooler.h's.
//
// Any thread; its lock guards its data and is held for no call to anybody else but Staging's count.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "fs/node.h"
#include "fs/staging.h"

namespace kvfs::fs {

struct Context;

class StagedFile : public File {
 public:
  enum class Phase {
    kStaged,      // written, not a job yet
    kSubmitting,  // handed to the scheduler
    kSubmitted,   // a job: read-only, listed until it ends
    kGone,        // unlinked, refused or ended
  };

  StagedFile(Context& context, const Place& place, std::string name);
  // A job that is pending already: of before a restart, or submitted past the mount.
  StagedFile(Context& context, const Place& place, std::string name, std::string prompt);
  ~StagedFile() override;

  StateId state() const override { return state_; }
  Result<Attributes> attributes() override;
  void change(const Changes& changes, Done done) override;
  Result<std::unique_ptr<Handle>> open(int flags) override;

  Place place() const;
  std::string name() const;
  std::string content() const;
  std::int64_t changed_ns() const;  // as it was set, or of the last write
  std::uint64_t revision() const;  // grows with every change of the content
  Phase phase() const;
  // To `next` when it is `expected`; false otherwise.
  bool advance(Phase expected, Phase next);
  // While staged. False: it is not any more.
  bool move_to(const Place& place, const std::string& name);

  // What the spooler remembers of it.
  struct Verdict {
    std::uint64_t revision = 0;
    std::optional<Error> error;
  };
  std::optional<Verdict> verdict() const;
  void set_verdict(Verdict verdict);
  bool set_announced(bool announced);  // gives what it was before
  bool written() const;
  bool open_for_writing() const;
  bool being_written() const;           // by a handle that wrote and is not released
  std::optional<Error> failed() const;  // a write that failed is final
  void want_cancel();                   // unlinked while it was being submitted
  bool cancel_wanted() const;

  // The handle's side.
  struct Writer {  // what one open handle did
    bool may_write = false;
    bool appends = false;
    bool empties = false;  // opened so that it says: these contents are mine, be they empty
    bool wrote = false;
    bool failed = false;
  };
  std::size_t read(std::uint64_t offset, MutableByteSpan out) const;
  Result<std::size_t> write(Writer& writer, std::uint64_t offset, ByteSpan bytes);
  Status resize(Writer& writer, std::uint64_t size);
  void released(const Writer& writer);

 private:
  Status room_for(std::uint64_t size);  // with the lock held
  void touched(Writer& writer);
  Status writable() const;

  Context& context_;
  const StateId state_;       // at birth: names the group of nodes it belongs to
  mutable std::mutex mutex_;  // guards everything below
  Place place_;
  std::string name_;
  std::string content_;
  std::uint64_t counted_ = 0;  // bytes taken from Staging
  std::uint64_t revision_ = 1;
  std::int64_t changed_ns_ = 0;
  Phase phase_ = Phase::kStaged;
  int open_ = 0;     // handles that may write
  int writing_ = 0;  // handles that wrote and are not released
  bool written_ = false;
  bool announced_ = false;
  bool cancel_wanted_ = false;
  std::optional<Verdict> verdict_;
  std::optional<Error> failed_;
};

}  // namespace kvfs::fs

#include "fs/file_buffer.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "codec/base/log.h"
#include "engine/store/write_transaction.h"
#include "fs/context.h"
#include "fs/open_files.h"

namespace kvfs::fs {
namespace {

using store::kPieceBytes;

constexpr std::chrono::milliseconds kStale{5000};  // written and neither closed nor synced

std::uint64_t pieces_of(std::uint64_t size) {
  return size / kPieceBytes + (size % kPieceBytes != 0);
}

const store::FilePiece* find(const store::FileWrite& write, std::uint64_t number) {
  const auto it = std::ranges::lower_bound(write.pieces, number, {}, &store::FilePiece::number);
  return it != write.pieces.end() && it->number == number ? &*it : nullptr;
}

}  // namespace

FileBuffer::FileBuffer(Context& context, FileId id, store::FileNode node)
    : context_(context), id_(id), node_(std::move(node)), stored_size_(node_.size) {}

FileBuffer::~FileBuffer() {
  context_.files.count(-static_cast<std::int64_t>(dirty_bytes_));
  context_.files.closed(id_);
  if (!node_.linked) {
    reap(context_, id_);
  } else if (!dirty_.empty()) {
    KVFS_WARN("file {}: its last writes could not be stored", id_.value);
  }
}

store::FileNode FileBuffer::node() const {
  const std::lock_guard lock(mutex_);
  return node_;
}

// --- pieces, with the lock held -----------------------------------------------------------------

Result<std::optional<Bytes>> FileBuffer::piece(std::uint64_t number) {
  if (const auto it = dirty_.find(number); it != dirty_.end()) return it->second;
  if (number >= cut_) return std::nullopt;
  if (flushing_) {
    if (const store::FilePiece* found = find(*flushing_, number)) return found->bytes;
    if (number >= flushing_->keep_below) return std::nullopt;
  }
  return context_.store.piece(id_, number);
}

Status FileBuffer::read_source(std::uint64_t offset, MutableByteSpan out) {
  if (!node_.source || offset >= node_.source_bytes) return {};
  if (!source_) {
    KVFS_ASSIGN(const auto files, context_.versions.get(node_.source));
    KVFS_ASSIGN(source_, files->view(node_.source_part));
  }
  const auto size = std::min<std::uint64_t>(out.size(), node_.source_bytes - offset);
  KVFS_TRY(source_->read(offset, out.first(size)));
  return {};
}

Result<Bytes> FileBuffer::whole_piece(std::uint64_t number) {
  KVFS_ASSIGN(auto found, piece(number));
  if (found) return *std::move(found);
  const std::uint64_t begin = number * kPieceBytes;
  if (begin >= node_.source_bytes) return Bytes{};
  Bytes bytes(std::min(kPieceBytes, node_.source_bytes - begin));
  KVFS_TRY(read_source(begin, bytes));
  return bytes;
}

Status FileBuffer::put(std::uint64_t offset, ByteSpan bytes) {
  while (!bytes.empty()) {
    const std::uint64_t number = offset / kPieceBytes;
    const std::size_t skip = offset % kPieceBytes;
    const std::size_t n = std::min<std::size_t>(bytes.size(), kPieceBytes - skip);
    const auto it = dirty_.find(number);
    Bytes content;
    if (it != dirty_.end()) {
      content = std::move(it->second);
    } else if (n < kPieceBytes) {
      KVFS_ASSIGN(content, whole_piece(number));
    }
    const std::size_t before = it == dirty_.end() ? 0 : content.size();
    if (content.size() < skip + n) content.resize(skip + n);
    std::memcpy(content.data() + skip, bytes.data(), n);
    dirty_bytes_ += content.size() - before;
    context_.files.count(static_cast<std::int64_t>(content.size() - before));
    dirty_[number] = std::move(content);
    bytes = bytes.subspan(n);
    offset += n;
  }
  return {};
}

void FileBuffer::touched() {
  node_.modified_ns = node_.changed_ns = now_ns();
  changed_ = true;
}

void FileBuffer::forget_dirty(std::uint64_t from) {
  for (auto it = dirty_.lower_bound(from); it != dirty_.end(); it = dirty_.erase(it)) {
    dirty_bytes_ -= it->second.size();
    context_.files.count(-static_cast<std::int64_t>(it->second.size()));
  }
}

// --- what handles do ----------------------------------------------------------------------------

Result<Bytes> FileBuffer::read(std::uint64_t offset, std::size_t size) {
  const std::lock_guard lock(mutex_);
  if (offset >= node_.size) return Bytes{};
  Bytes out(std::min<std::uint64_t>(size, node_.size - offset));
  for (std::size_t done = 0; done < out.size();) {
    const std::uint64_t at = offset + done;
    const std::size_t skip = at % kPieceBytes;
    const MutableByteSpan part = MutableByteSpan(out).subspan(
        done, std::min<std::size_t>(out.size() - done, kPieceBytes - skip));
    KVFS_ASSIGN(const auto found, piece(at / kPieceBytes));
    if (!found) {
      KVFS_TRY(read_source(at, part));
    } else if (skip < found->size()) {
      std::memcpy(part.data(), found->data() + skip, std::min(part.size(), found->size() - skip));
    }
    done += part.size();
  }
  return out;
}

void FileBuffer::write(std::uint64_t offset, ByteSpan bytes, Answer<std::size_t> done) {
  std::unique_lock lock(mutex_);
  if (offset > kMaxSize - bytes.size()) {
    lock.unlock();
    return done(fail(ErrorCode::kTooLarge, "writing a file", "it would end beyond 2^62 bytes"));
  }
  if (const Status status = put(offset, bytes); !status) {
    lock.unlock();
    return done(fail(status.error()));
  }
  node_.size = std::max<std::uint64_t>(node_.size, offset + bytes.size());
  touched();
  const bool full = dirty_bytes_ + flushing_bytes_ > kMost || context_.files.full();
  if (full) {
    waiting_next_.push_back([size = bytes.size(), done = std::move(done)](const Status& status) {
      done(status ? Result<std::size_t>(size) : fail(status.error()));
    });
  }
  if (!flushing_ && (full || dirty_bytes_ > kFlushAt)) start_flush();
  if (!timer_ && !flushing_) {
    timer_ = true;
    context_.chores.post_after(kStale, [weak = weak_from_this()] {
      const auto self = weak.lock();
      if (!self) return;
      const std::lock_guard again(self->mutex_);
      self->timer_ = false;
      if (!self->flushing_ && self->changed_) self->start_flush();
    });
  }
  lock.unlock();
  if (!full) done(bytes.size());
}

Status FileBuffer::resize(std::uint64_t size) {
  const std::lock_guard lock(mutex_);
  if (size > kMaxSize) {
    return fail(ErrorCode::kTooLarge, "truncating a file", "it would end beyond 2^62 bytes");
  }
  if (size < node_.size) {
    const std::uint64_t number = size / kPieceBytes;
    const std::size_t rest = size % kPieceBytes;
    Bytes border;
    if (rest != 0) {
      KVFS_ASSIGN(border, whole_piece(number));
      border.resize(std::min(border.size(), rest));
    }
    forget_dirty(number);
    cut_ = std::min(cut_, number);  // the border piece is put anew
    node_.source_bytes = std::min(node_.source_bytes, size);
    if (rest != 0 && !border.empty()) KVFS_TRY(put(number * kPieceBytes, border));
  }
  node_.size = size;
  touched();
  return {};
}

Status FileBuffer::change(const Changes& changes) {
  if (changes.size) KVFS_TRY(resize(*changes.size));
  const std::lock_guard lock(mutex_);
  node_.mode = changes.mode.value_or(node_.mode) & 07777;
  node_.uid = changes.uid.value_or(node_.uid);
  node_.gid = changes.gid.value_or(node_.gid);
  node_.modified_ns = changes.modified_ns.value_or(node_.modified_ns);
  node_.changed_ns = now_ns();
  changed_ = true;
  return {};
}

Result<std::optional<std::uint64_t>> FileBuffer::seek(std::uint64_t offset, bool data) {
  const std::lock_guard lock(mutex_);
  const std::uint64_t end = pieces_of(node_.size);
  for (std::uint64_t number = offset / kPieceBytes; number < end; ++number) {
    const std::uint64_t begin = std::max(offset, number * kPieceBytes);
    KVFS_ASSIGN(const auto found, piece(number));
    if ((found.has_value() || begin < node_.source_bytes) == data) return begin;
    if (!data || !dirty_.empty() || flushing_) continue;
    // Nothing is here but what the store holds: the holes of a large file are many.
    KVFS_ASSIGN(const auto next, context_.store.next_piece(id_, number));
    if (!next || *next >= std::min(end, cut_)) return std::nullopt;
    number = *next - 1;
  }
  if (data) return std::nullopt;
  return node_.size;
}

void FileBuffer::writer(int more) {
  const std::lock_guard lock(mutex_);
  writers_ += more;
}

bool FileBuffer::being_written() const {
  const std::lock_guard lock(mutex_);
  return writers_ > 0;
}

void FileBuffer::unlinked() {
  const std::lock_guard lock(mutex_);
  node_.linked = false;
}

void FileBuffer::replaced(store::FileNode node) {
  const std::lock_guard lock(mutex_);
  forget_dirty(0);
  node_ = std::move(node);
  stored_size_ = node_.size;
  soon_ = true;
  cut_ = kNever;
  changed_ = false;
  source_.reset();
}

// --- to the disk --------------------------------------------------------------------------------

void FileBuffer::sync(Done done) {
  {
    const std::lock_guard lock(mutex_);
    if (changed_) {
      waiting_next_.push_back(std::move(done));
      if (!flushing_) start_flush();
      return;
    }
    if (flushing_) {
      waiting_now_.push_back(std::move(done));
      return;
    }
  }
  done({});
}

void FileBuffer::reach_disk(Done done) {
  sync([self = shared_from_this(), done = std::move(done)](const Status& status) {
    const bool soon = [&] {
      const std::lock_guard lock(self->mutex_);
      return self->soon_;
    }();
    if (!status || !soon) return done(status);
    fs::reach_disk(self->context_, done);
  });
}

void FileBuffer::start_flush() {
  auto write = std::make_shared<store::FileWrite>();  // with the writer and, for readers, here
  write->node = node_;
  write->keep_below = std::exchange(cut_, kNever);
  for (auto& [number, bytes] : dirty_) write->pieces.push_back({number, std::move(bytes)});
  dirty_.clear();
  flushing_bytes_ = std::exchange(dirty_bytes_, 0);
  changed_ = false;
  waiting_now_ = std::exchange(waiting_next_, {});
  flushing_ = write;
  soon_ = write->pieces.empty() && write->keep_below == kNever && node_.size == stored_size_;
  auto body = [id = id_, write](store::WriteTransaction& tx) { return tx.write_node(id, *write); };
  auto ended = [self = shared_from_this(), alive = context_.alive()](const Status& status) {
    self->flush_ended(status);
  };
  if (soon_) return context_.store.write_soon(std::move(body), std::move(ended));
  context_.store.write_async(std::move(body), std::move(ended), flushing_bytes_);
}

FileBuffer::Waiters FileBuffer::flushed(const Status& status) {
  const auto written = std::exchange(flushing_, nullptr);
  context_.files.count(-static_cast<std::int64_t>(std::exchange(flushing_bytes_, 0)));
  if (status) stored_size_ = written->node.size;
  if (!status) {  // it is here again, below what was written since
    for (const store::FilePiece& piece : written->pieces) {
      if (piece.number >= cut_ || !dirty_.try_emplace(piece.number, piece.bytes).second) continue;
      dirty_bytes_ += piece.bytes.size();
      context_.files.count(static_cast<std::int64_t>(piece.bytes.size()));
    }
    cut_ = std::min(cut_, written->keep_below);
    changed_ = true;
  }
  return std::exchange(waiting_now_, {});
}

void FileBuffer::flush_ended(const Status& status) {
  Waiters waited;
  {
    const std::lock_guard lock(mutex_);
    waited = flushed(status);
    if (!waiting_next_.empty() || (status && dirty_bytes_ > kFlushAt)) start_flush();
  }
  for (const Done& done : waited) done(status);
}

}  // namespace kvfs::fs

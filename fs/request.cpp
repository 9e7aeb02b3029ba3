#include "fs/request.h"

#include <cerrno>
#include <utility>

#include "fs/errno.h"

namespace kvfs::fs {

Request::Request(std::shared_ptr<Session> session, fuse_req_t request)
    : session_(std::move(session)), request_(request) {
  session_->begin_request();
}

Request::~Request() {
  if (claim()) finish([](fuse_req_t request) { fuse_reply_err(request, EIO); });
}

void Request::answer(const std::function<void(fuse_req_t)>& reply) {
  if (!claim()) return;
  finish(reply);
  if (is_parked_) session_->unpark(shared_from_this());
}

// The winner's part. libfuse may be calling interrupted() for this request right now, on another
// thread: taking the function away waits for that, so that nothing is called after the reply.
void Request::finish(const std::function<void(fuse_req_t)>& reply) {
  if (is_parked_) fuse_req_interrupt_func(request_, nullptr, nullptr);
  reply(request_);
  session_->end_request();
}

void Request::error(int number) {
  answer([number](fuse_req_t request) { fuse_reply_err(request, number); });
}

void Request::status(const Status& status) { error(status ? 0 : errno_of(status.error())); }

void Request::data(ByteSpan bytes) {
  answer([bytes](fuse_req_t request) {
    fuse_reply_buf(request, reinterpret_cast<const char*>(bytes.data()), bytes.size());
  });
}

void Request::fail(const Error& why) { error(errno_of(why)); }

bool Request::park() {
  {
    const std::lock_guard lock(mutex_);
    arming_ = true;
  }
  is_parked_ = true;
  fuse_req_interrupt_func(request_, interrupted, this);
  const bool interrupted_already = [&] {
    const std::lock_guard lock(mutex_);
    arming_ = false;
    return interrupted_;
  }();
  if (interrupted_already) cancel(EINTR);
  if (!answered_ && !session_->park(shared_from_this())) cancel(ECANCELED);
  if (answered_) session_->unpark(shared_from_this());
  return !answered_;
}

void Request::on_drop(std::function<void()> drop) {
  {
    const std::lock_guard lock(mutex_);
    if (!was_dropped_) {
      drop_ = std::move(drop);
      return;
    }
  }
  drop();
}

void Request::dropped() {
  std::function<void()> drop;
  {
    const std::lock_guard lock(mutex_);
    was_dropped_ = true;
    drop = std::move(drop_);
  }
  if (drop) drop();
}

void Request::cancel(int number) {
  const auto self = shared_from_this();
  if (!claim()) return;
  finish([number](fuse_req_t request) { fuse_reply_err(request, number); });
  session_->unpark(self);
  dropped();
}

// Called with the request's lock held. While park() arms it, libfuse calls this from within, and
// frees the request under its own feet if it is answered there: park() does it then.
void Request::interrupted(fuse_req_t request, void* self) {
  // Null: its destructor is about to answer, and waits for us.
  const auto me = static_cast<Request*>(self)->weak_from_this().lock();
  if (!me) return;
  {
    const std::lock_guard lock(me->mutex_);
    me->interrupted_ = true;
    if (me->arming_) return;
  }
  if (!me->claim()) return;
  fuse_reply_err(request, EINTR);
  me->session_->unpark(me);
  me->session_->end_request();
  me->dropped();
}

}  // namespace kvfs::fs

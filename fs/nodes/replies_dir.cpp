#include "fs/nodes/replies_dir.h"

#include <algorithm>

#include "engine/store/write_transaction.h"
#include "fs/nodes/kept_file.h"
#include "fs/nodes/reply_file.h"
#include "fs/nodes/root.h"

namespace kvfs::fs {

Result<NodePtr> RepliesDir::lookup(std::string_view name) {
  if (context().hidden.hidden(ino(), name)) return no_such_file(name);
  const std::string job(name);
  if (is_kept(name)) {
    return std::make_shared<KeptFile>(context(), reply_ino(state(), name), state(),
                                      store::FileArea::kReply, job);
  }
  KVFS_TRY(context().scheduler.reply(state(), job));
  Ino number = reply_ino(state(), name);
  if (const NodePtr known = context().nodes.find(number)) {
    const auto* reply = dynamic_cast<const ReplyFile*>(known.get());
    if (reply == nullptr || !reply->is(state(), job)) number = context().inos.next();
  }
  return std::make_shared<ReplyFile>(context(), number, state(), job);
}

Result<std::vector<Entry>> RepliesDir::list() {
  std::vector<Entry> entries;
  for (auto& name : context().scheduler.reply_names(state())) {
    if (context().hidden.hidden(ino(), name)) continue;
    const Ino number = reply_ino(state(), name);
    entries.push_back({std::move(name), false, number});
  }
  KVFS_ASSIGN(const auto kept, context().store.files(state(), store::FileArea::kReply));
  const std::size_t jobs = entries.size();
  for (const std::string& name : kept) {
    const auto end = entries.begin() + static_cast<std::ptrdiff_t>(jobs);
    const bool listed = std::ranges::find(entries.begin(), end, name, &Entry::name) != end;
    if (listed || context().hidden.hidden(ino(), name)) continue;
    entries.push_back({name, false, reply_ino(state(), name)});
  }
  return entries;
}

bool RepliesDir::at_rest(const std::vector<Entry>& listed) {
  return listed.empty() && !context().hidden.any(ino());
}

bool RepliesDir::is_kept(std::string_view name) const {
  const auto names = context().scheduler.reply_names(state());
  if (std::ranges::find(names, name) != names.end()) return false;
  return context().store.file(state(), store::FileArea::kReply, name).has_value();
}

void RepliesDir::create_file(const std::string& name, const Creation& /*how*/,
                             Answer<Created> done) {
  context().hidden.show(ino(), name);
  keep(context(), state(), store::FileArea::kReply, name, {}, now_ns(),
       [alive = context().alive(), state = state(), name,
        done = std::move(done)](const Status& status) {
         if (!status) return done(fail(status.error()));
         auto node = std::make_shared<KeptFile>(*alive, reply_ino(state, name), state,
                                                store::FileArea::kReply, name);
         done(Created{node, keeping_handle(*alive, state, store::FileArea::kReply, name, {})});
       });
}

void RepliesDir::rename(const std::string& name, Directory& to, const std::string& new_name,
                        bool /*replace*/, Done done) {
  const auto file = context().store.file(state(), store::FileArea::kReply, name);
  if (!file || to.ino() != ino() || !is_kept(name)) {
    return done(fail(ErrorCode::kPermission, "renaming reply " + name, "it is its job's"));
  }
  context().store.write_async(
      [state = state(), name, new_name, file = *file](store::WriteTransaction& tx) -> Status {
        KVFS_TRY(tx.remove_file(state, store::FileArea::kReply, name));
        KVFS_TRY(tx.put_file(state, store::FileArea::kReply, new_name, file));
        return {};
      },
      std::move(done));
}

void RepliesDir::remove_file(const std::string& name, Done done) {
  if (is_kept(name)) {
    return context().store.write_async(
        [state = state(), name](store::WriteTransaction& tx) {
          return tx.remove_file(state, store::FileArea::kReply, name);
        },
        std::move(done));
  }
  context().hidden.hide(ino(), name);
  done({});
}

}  // namespace kvfs::fs

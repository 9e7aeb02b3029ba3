#include "fs/nodes/replies_dir.h"

#include "fs/nodes/reply_file.h"
#include "fs/nodes/root.h"

namespace kvfs::fs {

Result<NodePtr> RepliesDir::lookup(std::string_view name) {
  if (context().hidden.hidden(ino(), name)) return no_such_file(name);
  const std::string job(name);
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
  return entries;
}

void RepliesDir::remove_file(const std::string& name, Done done) {
  context().hidden.hide(ino(), name);
  done({});
}

}  // namespace kvfs::fs

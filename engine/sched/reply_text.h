// From tokens to the text of a reply: special tokens are not printed, an incomplete UTF-8 character
// waits for its rest, and a stop string cuts the text before itself. One owner, no locking.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/text/tokenizer.h"

namespace kvfs::sched {

class ReplyText {
 public:
  ReplyText(const text::Tokenizer& tokenizer, std::vector<std::string> stops)
      : tokenizer_(tokenizer), stops_(std::move(stops)) {}

  // What may be shown now. Text that may turn out to begin a stop string is held back.
  std::string push(TokenId token);
  std::string finish();  // the rest
  bool stopped() const { return stopped_; }

 private:
  std::string release(std::string_view more);

  const text::Tokenizer& tokenizer_;
  const std::vector<std::string> stops_;
  text::Utf8Stream utf8_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace kvfs::sched

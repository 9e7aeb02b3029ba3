// From tokens to the text of a reply: special tokens are not printed, an incomplete UTF-8 character
// waits for its rest, and a stop string cuts the text before itself. The first stop string to be
// complete counts, of those that are at once the longest: so the text does not depend on how it was
// cut into tokens. One owner, no locking.
#pragma once

#include <deque>
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
  std::string push_end();  // a token that ends the reply: never printed
  std::string finish();    // the rest
  bool stopped() const { return stopped_; }
  // How many of the tokens may be told of: those whose text has been shown, or needs not be. Those
  // that lie in a stop string never are.
  std::size_t tokens_shown() const { return tokens_shown_; }

 private:
  std::string add(std::string_view bytes);
  std::string release(std::string_view more);
  std::string show(std::string text);

  const text::Tokenizer& tokenizer_;
  const std::vector<std::string> stops_;
  text::Utf8Stream utf8_;
  std::string held_;
  bool stopped_ = false;
  struct Waiting {  // a token that is not told of yet: where it stands in the text
    std::size_t begin, end;
  };
  std::size_t decoded_ = 0;  // bytes of text so far
  std::size_t shown_ = 0;    // of them
  std::size_t tokens_shown_ = 0;
  std::deque<Waiting> waiting_;
};

}  // namespace kvfs::sched

#include "engine/sched/reply_text.h"

#include <algorithm>
#include <utility>

namespace kvfs::sched {
namespace {

// Bytes at the end of text that begin a stop string.
std::size_t begun(std::string_view text, const std::vector<std::string>& stops) {
  std::size_t longest = 0;
  for (const auto& stop : stops) {
    for (std::size_t n = std::min(stop.size() - 1, text.size()); n > longest; --n) {
      if (text.ends_with(std::string_view(stop).substr(0, n))) longest = n;
    }
  }
  return longest;
}

// Where the stop string begins that is complete first, the longest of those that end together.
std::size_t first_stop(std::string_view text, const std::vector<std::string>& stops) {
  std::pair best{std::string::npos, std::string::npos};  // end, begin
  for (const auto& stop : stops) {
    const std::size_t at = text.find(stop);
    if (at != std::string::npos) best = std::min(best, std::pair{at + stop.size(), at});
  }
  return best.second;
}

}  // namespace

std::string ReplyText::push(TokenId token) {
  return add(tokenizer_.is_special(token) ? std::string_view() : tokenizer_.bytes_of(token));
}

std::string ReplyText::push_end() { return add({}); }

std::string ReplyText::add(std::string_view bytes) {
  if (stopped_) return {};
  const std::size_t begin = decoded_;
  const std::string more = utf8_.push(bytes);
  decoded_ += more.size();
  // Half a character may be the beginning of a stop string.
  waiting_.push_back({begin, decoded_ + (utf8_.waits() ? 1 : 0)});
  return show(release(more));
}

std::string ReplyText::finish() {
  if (stopped_) return {};
  std::string out = release(utf8_.finish());
  if (!stopped_) out += std::exchange(held_, {});
  return show(std::move(out));
}

std::string ReplyText::release(std::string_view more) {
  held_ += more;
  const std::size_t cut = first_stop(held_, stops_);
  if (cut != std::string::npos) {
    stopped_ = true;
    held_.resize(cut);
    return std::exchange(held_, {});
  }
  const std::size_t keep = begun(held_, stops_);
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, out.size());
  return out;
}

std::string ReplyText::show(std::string text) {
  shown_ += text.size();
  while (!waiting_.empty()) {
    const auto [begin, end] = waiting_.front();
    if (end > shown_ && !(stopped_ && begin < shown_)) break;
    waiting_.pop_front();
    ++tokens_shown_;
  }
  if (stopped_) waiting_.clear();
  return text;
}

}  // namespace kvfs::sched

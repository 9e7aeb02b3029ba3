#include "engine/sched/reply_text.h"

#include <algorithm>

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

}  // namespace

std::string ReplyText::push(TokenId token) {
  if (stopped_ || tokenizer_.is_special(token)) return {};
  return release(utf8_.push(tokenizer_.bytes_of(token)));
}

std::string ReplyText::finish() {
  if (stopped_) return {};
  std::string out = release(utf8_.finish());
  if (!stopped_) out += std::exchange(held_, {});
  return out;
}

std::string ReplyText::release(std::string_view more) {
  held_ += more;
  std::size_t cut = std::string::npos;
  for (const auto& stop : stops_) cut = std::min(cut, held_.find(stop));
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

}  // namespace kvfs::sched

#include "engine/sched/conversation.h"

#include <algorithm>
#include <boost/json.hpp>

namespace kvfs::sched {
namespace {

namespace json = boost::json;

tl::unexpected<Error> bad(std::size_t index, std::string why) {
  return fail(
      ErrorCode::kInvalid, "message " + std::to_string(index + 1), std::move(why),
      "give an array of {\"role\": \"system\", \"user\" or \"assistant\", \"content\": text}");
}

Result<std::string> content_of(const json::value* content, std::size_t index) {
  if (content == nullptr) return bad(index, "it has no content");
  if (content->is_string()) return std::string(content->get_string());
  if (!content->is_array()) return bad(index, "its content is no text");
  std::string out;
  for (const json::value& part : content->get_array()) {
    const json::object* object = part.if_object();
    const json::value* kind = object == nullptr ? nullptr : object->if_contains("type");
    const json::value* text = object == nullptr ? nullptr : object->if_contains("text");
    if (kind == nullptr || !kind->is_string() || kind->get_string() != "text" || text == nullptr ||
        !text->is_string()) {
      return bad(index, "a part of its content is no text");
    }
    out += text->get_string();
  }
  return out;
}

}  // namespace

Result<std::vector<text::jinja::Message>> read_messages(std::string_view text) {
  boost::system::error_code error;
  const json::value parsed = json::parse(text, error);
  if (error || !parsed.is_array()) {
    return fail(ErrorCode::kInvalid, "messages", "not a JSON array",
                "give an array of {\"role\", \"content\"}, or set format to text");
  }
  std::vector<text::jinja::Message> out;
  for (const json::value& each : parsed.get_array()) {
    const std::size_t index = out.size();
    const json::object* message = each.if_object();
    if (message == nullptr) return bad(index, "it is no object");
    const json::value* role = message->if_contains("role");
    if (role == nullptr || !role->is_string()) return bad(index, "it has no role");
    KVFS_ASSIGN(std::string content, content_of(message->if_contains("content"), index));
    if (!text::is_valid_utf8(content)) return bad(index, "its content is not UTF-8");
    out.push_back({std::string(role->get_string()), std::move(content)});
  }
  return out;
}

Result<Conversation> Conversation::render(const model::ModelCard& card,
                                          const std::vector<text::jinja::Message>& messages) {
  if (!card.chat) {
    return fail(ErrorCode::kInvalid, "messages", "the model has no chat template",
                "send one text as the prompt");
  }
  Conversation out;
  out.tokenizer_ = card.tokenizer.get();
  KVFS_ASSIGN(out.parts_, card.chat->conversation(messages));
  std::vector<text::TextPart> parts;
  for (const auto& part : out.parts_) {
    out.text_ += part.text;
    parts.push_back({part.text, part.special});
  }
  out.stretches_ = card.tokenizer->stretches(parts);
  return out;
}

std::vector<TokenId> Conversation::rest_after(const std::vector<TokenId>& ids,
                                              std::size_t offset) const {
  std::vector<text::TextPart> parts;
  for (const auto& part : parts_) {
    const std::size_t dropped = std::min(offset, part.text.size());
    offset -= dropped;
    if (dropped < part.text.size()) {
      parts.push_back({std::string_view(part.text).substr(dropped), part.special});
    }
  }
  return parts.empty() ? std::vector<TokenId>{} : tokenizer_->encode_after(ids, parts);
}

bool Follower::take(TokenId id) {
  const auto& stretches = conversation_->stretches();
  const auto& tokenizer = conversation_->tokenizer();
  const bool control = tokenizer.is_special(id);
  const std::string_view bytes = tokenizer.bytes_of(id);
  if (id < 0 || stretch_ == stretches.size()) return false;
  if (!control && bytes.empty()) return true;  // prints nothing
  const text::Stretch& here = stretches[stretch_];
  if (control || here.control >= 0) {
    if (!control || here.control != id) return false;
    offset_ = here.end;
    ++stretch_;
    return true;
  }
  std::string_view left = conversation_->text().substr(offset_, here.end - offset_);
  // Tokenizers that put a space before a first word: it is no byte of the text.
  const bool added = offset_ == here.begin && here.spaced && !spaced_ && bytes.starts_with(' ');
  const std::string_view spelled = added ? bytes.substr(1) : bytes;
  if (!left.starts_with(spelled)) return false;
  offset_ += spelled.size();
  spaced_ = offset_ == here.begin && (spaced_ || added);
  if (offset_ == here.end) ++stretch_;
  return true;
}

bool Follower::at_border() const {
  const auto& stretches = conversation_->stretches();
  if (stretch_ == stretches.size()) return true;
  return offset_ == stretches[stretch_].begin;
}

}  // namespace kvfs::sched

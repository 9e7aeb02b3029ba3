#include "engine/sched/prompt.h"

#include <algorithm>

namespace kvfs::sched {
namespace {

constexpr std::string_view kWhat = "prompt";
constexpr std::int64_t kMostMoving = 1 << 27;  // tokens that are read with positions=compact

std::string number(std::size_t value) {  // 12,345
  std::string digits = std::to_string(value);
  for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > 0; at -= 3) {
    digits.insert(static_cast<std::size_t>(at), ",");
  }
  return digits;
}

std::size_t longest_token(const text::Tokenizer& tokenizer) {
  std::size_t longest = 1;
  for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) {
    longest = std::max(longest, tokenizer.bytes_of(id).size());
  }
  return longest;
}

bool is_continuation(char c) { return (static_cast<unsigned char>(c) & 0xC0U) == 0x80U; }

// At most `bytes` bytes of the head (or tail) of text, cut between characters.
std::string_view keep_bytes(std::string_view text, std::size_t bytes, bool head) {
  if (bytes >= text.size()) return text;
  std::size_t cut = head ? bytes : text.size() - bytes;
  if (head) {
    while (cut > 0 && is_continuation(text[cut])) --cut;
    return text.substr(0, cut);
  }
  while (cut < text.size() && is_continuation(text[cut])) ++cut;
  return text.substr(cut);
}

struct Renderer {
  const model::ModelCard& card;
  const JobParams& params;
  store::JobKind kind;
  const History& history;

  bool chat() const {
    return params.mode == TemplateMode::kChat ||
           (params.mode == TemplateMode::kAuto && card.chat != nullptr);
  }
  std::vector<TokenId> render(std::string_view text) const {
    if (chat()) {
      return kind == store::JobKind::kFeed ? card.chat->feed(history.ids, text)
                                           : card.chat->prompt(history.ids, text);
    }
    std::vector<TokenId> ids;
    if (history.ids.empty()) ids = card.tokenizer->begin_tokens();
    const text::TextPart part{text, text::SpecialText::kAsText};
    const auto more = card.tokenizer->encode_after(history.ids, {&part, 1});
    ids.insert(ids.end(), more.begin(), more.end());
    return ids;
  }
};

tl::unexpected<Error> too_long(const std::string& tokens, std::size_t room) {
  return fail(ErrorCode::kTooLarge, std::string(kWhat),
              tokens + " tokens, and the state leaves room for " + number(room),
              "shorten it, set truncate to head or tail, or begin a new state");
}

// The text's own tokens give the place to cut; what the template adds stays whole.
Result<std::vector<TokenId>> cut_to(const Renderer& renderer, std::string_view text,
                                    std::size_t room) {
  const bool head = renderer.params.truncate == Truncate::kHead;
  const auto& tokenizer = *renderer.card.tokenizer;
  const auto ids = tokenizer.encode(text, text::SpecialText::kAsText);
  std::size_t keep = std::min(ids.size(), room);
  while (keep > 0) {
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < keep; ++i) {
      bytes += tokenizer.bytes_of(head ? ids[i] : ids[ids.size() - 1 - i]).size();
    }
    auto rendered = renderer.render(keep_bytes(text, bytes, head));
    if (rendered.size() <= room) return rendered;
    keep -= std::min(keep, rendered.size() - room);
  }
  return too_long(number(ids.size()), room);
}

Result<Prompt> conversation_tokens(const model::ModelCard& card, const History& history,
                                   std::string_view text, KnownTexts& known, std::uint32_t uid) {
  KVFS_ASSIGN(const auto messages, read_messages(text));
  KVFS_ASSIGN(const auto conversation, Conversation::render(card, messages));
  if (history.ids.empty()) {
    auto match = known.find(conversation, card.info, uid);
    const auto rest = conversation.rest_after(match.ids, match.offset);
    match.ids.insert(match.ids.end(), rest.begin(), rest.end());
    return Prompt{std::move(match.ids), std::move(match.last)};
  }
  Follower follower(conversation);
  for (const TokenId id : history.ids) {
    if (follower.take(id)) continue;
    return fail(
        ErrorCode::kInvalid, "messages",
        "the state does not begin so: they part after " + number(follower.offset()) + " bytes",
        "send them to an empty state, or send the new turn alone as the prompt");
  }
  auto rest = conversation.rest_after(history.ids, follower.offset());
  if (!follower.at_border() || rest.empty()) {
    return fail(ErrorCode::kInvalid, "messages",
                rest.empty() ? "the state holds all of them" : "the state ends within one of them",
                "send them to an empty state, or send the new turn alone as the prompt");
  }
  return Prompt{std::move(rest), std::nullopt};
}

}  // namespace

Status check_text(std::string_view text) {
  if (text.empty() || text == "\n" || text == "\r\n") {
    return fail(ErrorCode::kInvalid, std::string(kWhat), "it is empty", "write some text into it");
  }
  if (!text::is_valid_utf8(text)) {
    return fail(ErrorCode::kInvalid, std::string(kWhat), "it is not UTF-8",
                "convert it, with iconv for instance");
  }
  return {};
}

Status check_model(const model::ModelCard& card, const JobParams& params, const History& history) {
  const std::string what = "model " + card.info.name;
  if (params.mode == TemplateMode::kChat && !card.chat) {
    return fail(
        ErrorCode::kInvalid, what,
        "it has no chat template" + (card.chat_error.empty() ? "" : " (" + card.chat_error + ")"),
        "set template to raw");
  }
  for (const auto& [id, bias] : params.sampling.logit_bias) {
    if (id < card.info.vocab_size) continue;
    return fail(ErrorCode::kInvalid, "parameter logit_bias",
                "token " + std::to_string(id) + " is not in the vocabulary of " + card.info.name,
                "give ids from 0 to " + std::to_string(card.info.vocab_size - 1));
  }
  if (!history.id) return {};
  if (history.version.fingerprint != card.info.fingerprint) {
    return fail(ErrorCode::kInvalid, what,
                "the state was computed by another model, " + history.version.model + " (" +
                    history.version.fingerprint.hex() + ")",
                "set model to that one, or begin a new state");
  }
  if (history.version.kv_dtype != card.info.kv_dtype) {
    return fail(ErrorCode::kUnsupported, what,
                "the state holds " + std::string(name_of(history.version.kv_dtype)) +
                    " and the daemon computes in " + std::string(name_of(card.info.kv_dtype)),
                "start the daemon with the --compute mode that made the state, or feed its text to "
                "a new state");
  }
  if (!card.info.prunes && store::has_gaps(history.version)) {
    return fail(ErrorCode::kUnsupported, what,
                "the state was pruned, and it cannot go on from that on this device yet",
                "start the daemon with --device cpu");
  }
  return {};
}

Result<Prompt> prompt_tokens(const model::ModelCard& card, const JobParams& params,
                             store::JobKind kind, const History& history, std::string_view text,
                             KnownTexts& known, std::uint32_t uid) {
  if (kind == store::JobKind::kPrune) return Prompt{};
  const bool generates = kind != store::JobKind::kFeed;
  std::int64_t most = std::int64_t{card.info.context_length} - (generates ? 1 : 0);
  const bool own_limit = params.max_prefix_tokens > 0 && params.max_prefix_tokens < most &&
                         kind != store::JobKind::kStep;  // step reads nothing
  if (own_limit) most = params.max_prefix_tokens;
  // Entries that are moved down between its pieces make room for the next.
  const bool moves = params.prune && params.prune->compact && params.prefill_chunk > 0;
  if (moves && !own_limit && kind != store::JobKind::kStep) most = kMostMoving;
  const std::int64_t left = most - history.version.next_pos;
  if (left <= 0) {
    return fail(ErrorCode::kTooLarge, std::string(kWhat),
                "the state's " + number(static_cast<std::size_t>(history.version.next_pos)) +
                    " tokens leave no room in " +
                    (own_limit ? "max_prefix_tokens of " : "the model's context of ") +
                    number(static_cast<std::size_t>(own_limit ? most : card.info.context_length)),
                "begin a new state, or fork an earlier one");
  }
  if (kind == store::JobKind::kStep) return Prompt{};

  const auto room = static_cast<std::size_t>(left);
  if (params.format == PromptFormat::kMessages) {
    if (!generates || params.mode == TemplateMode::kRaw) {
      return fail(ErrorCode::kInvalid, std::string(kWhat),
                  generates ? "template raw knows no messages" : "a feed takes no messages",
                  "set format to text");
    }
    auto prompt = conversation_tokens(card, history, text, known, uid);
    if (prompt && prompt->ids.size() > room) return too_long(number(prompt->ids.size()), room);
    return prompt;
  }
  const Renderer renderer{card, params, kind, history};
  // Tokenizing costs, and no token is longer than the longest: a text of more bytes cannot fit.
  if (text.size() / 8 > room) {
    const std::size_t bytes = room * longest_token(*card.tokenizer);
    if (text.size() > bytes && params.truncate == Truncate::kError) {
      return too_long("more than " + number(room), room);
    }
    text = keep_bytes(text, bytes, params.truncate == Truncate::kHead);
  }
  auto ids = renderer.render(text);
  if (ids.size() > room && params.truncate == Truncate::kError) {
    return too_long(number(ids.size()), room);
  }
  if (ids.size() > room) {
    KVFS_ASSIGN(ids, cut_to(renderer, text, room));
  }
  return Prompt{std::move(ids), std::nullopt};
}

}  // namespace kvfs::sched

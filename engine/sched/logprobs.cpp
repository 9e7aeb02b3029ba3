#include "engine/sched/logprobs.h"

#include "codec/base/bytes.h"

namespace kvfs::sched {
namespace {

void put(ByteWriter& out, const model::TokenLogprob& token) {
  out.number(token.id);
  out.number(token.logprob);
}

model::TokenLogprob take(ByteReader& in) {
  model::TokenLogprob token;
  token.id = in.number<TokenId>();
  token.logprob = in.number<float>();
  return token;
}

}  // namespace

std::string encode_logprobs(const std::vector<model::Logprobs>& logprobs) {
  ByteWriter out;
  for (const auto& each : logprobs) {
    put(out, each.token);
    out.number(static_cast<std::uint8_t>(each.top.size()));
    for (const auto& token : each.top) put(out, token);
  }
  return std::string(as_text(out.bytes()));
}

Result<std::vector<model::Logprobs>> decode_logprobs(std::string_view bytes) {
  ByteReader in(as_bytes(bytes));
  std::vector<model::Logprobs> out;
  while (!in.at_end()) {
    model::Logprobs each{.token = take(in)};
    for (std::size_t left = in.number<std::uint8_t>(); left > 0 && in.ok(); --left) {
      each.top.push_back(take(in));
    }
    if (!in.ok()) {
      return fail(ErrorCode::kCorrupt, "log probabilities of a reply", "they do not parse",
                  "run kvfsd --check");
    }
    out.push_back(std::move(each));
  }
  return out;
}

}  // namespace kvfs::sched

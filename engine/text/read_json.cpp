#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <unordered_map>

#include "engine/text/json_view.h"
#include "engine/text/readers.h"
#include "engine/text/utf8.h"

namespace kvfs::text {

Status read_json_pieces(const JsonView& root, TokenizerSpec& spec);  // read_json_steps.cpp

namespace {

class Reader {
 public:
  explicit Reader(JsonView root) : root_(std::move(root)) {}

  Result<TokenizerSpec> read() {
    KVFS_TRY(read_json_pieces(root_, spec_));  // says the spelling
    KVFS_ASSIGN(const JsonView model, root_.at("model"));
    KVFS_ASSIGN(std::string type, model.text_or("type", model.has("merges") ? "BPE" : "Unigram"));
    if (type != "BPE" && type != "Unigram") {
      return model.unsupported("type", "the model \"" + type + "\" is not known");
    }
    const bool unigram = type == "Unigram";
    if (unigram && spec_.algorithm == Algorithm::kByteBpe) {
      return model.unsupported("type", "Unigram over bytes is not known");
    }
    if (unigram) spec_.algorithm = Algorithm::kUnigram;
    KVFS_ASSIGN(spec_.byte_fallback, model.flag_or("byte_fallback", false));
    KVFS_TRY(unigram ? read_pieces(model) : read_vocab(model));
    KVFS_TRY(read_added());
    name_bytes();
    if (!unigram) KVFS_TRY(read_bpe(model));
    spec_.size = static_cast<std::int32_t>(spec_.tokens.size());
    KVFS_TRY(read_begin());
    return std::move(spec_);
  }

 private:
  // Where an id may lie: files have holes, but a huge id must not make a huge vocabulary.
  Status make_room(const JsonView& at, std::int64_t id, std::size_t entries) {
    const auto most = static_cast<std::int64_t>(2 * entries + 4096);
    if (id < 0 || id >= most) {
      return at.wrong("id " + std::to_string(id) + " in a vocabulary of " +
                      std::to_string(entries) + " tokens");
    }
    const auto place = static_cast<std::size_t>(id);
    while (spec_.tokens.size() <= place) spec_.tokens.push_back({"", TokenKind::kUnused});
    return {};
  }

  Status read_vocab(const JsonView& model) {
    KVFS_ASSIGN(const JsonView vocab, model.at("vocab"));
    KVFS_ASSIGN(const boost::json::object* entries, vocab.object());
    spec_.tokens.reserve(entries->size());
    for (const auto& [text, id] : *entries) {
      const JsonView entry = vocab.child(std::string_view(text).substr(0, 40), id);
      KVFS_ASSIGN(const std::int64_t number, entry.integer());
      KVFS_TRY(make_room(entry, number, entries->size()));
      SpelledToken& token = spec_.tokens[static_cast<std::size_t>(number)];
      if (token.kind != TokenKind::kUnused) {
        return entry.wrong("id " + std::to_string(number) + " is another token's too");
      }
      token = {std::string(text), TokenKind::kPlain};
      ids_[token.text] = static_cast<TokenId>(number);
    }
    if (entries->empty()) return vocab.wrong("it holds no tokens");
    return {};
  }

  Status read_pieces(const JsonView& model) {
    KVFS_ASSIGN(const JsonView vocab, model.at("vocab"));
    KVFS_ASSIGN(const boost::json::array* entries, vocab.array());
    for (std::size_t i = 0; i < entries->size(); ++i) {
      const JsonView entry = vocab.child(std::to_string(i), (*entries)[i]);
      KVFS_ASSIGN(const boost::json::array* pair, entry.array());
      if (pair->size() != 2) return entry.wrong("it is no pair of a piece and its score");
      KVFS_ASSIGN(const std::string text, entry.child("0", (*pair)[0]).text());
      KVFS_ASSIGN(const double score, entry.child("1", (*pair)[1]).number());
      if (!std::isfinite(static_cast<float>(score))) return entry.wrong("its score is no number");
      ids_.try_emplace(text, static_cast<TokenId>(i));
      spec_.tokens.push_back({text, TokenKind::kPlain, score});
    }
    KVFS_ASSIGN(const JsonView unknown, model.at("unk_id"));
    KVFS_ASSIGN(const std::int64_t id, unknown.integer());
    if (id < 0 || static_cast<std::size_t>(id) >= spec_.tokens.size()) {
      return unknown.wrong("id " + std::to_string(id) + " of " +
                           std::to_string(spec_.tokens.size()) + " pieces");
    }
    spec_.unknown = static_cast<TokenId>(id);
    spec_.tokens[static_cast<std::size_t>(id)].kind = TokenKind::kUnknown;
    return {};
  }

  Status read_added() {
    if (!root_.has("added_tokens")) return {};
    KVFS_ASSIGN(const JsonView list, root_.at("added_tokens"));
    KVFS_ASSIGN(const boost::json::array* entries, list.array());
    const std::size_t own = spec_.tokens.size();
    for (std::size_t i = 0; i < entries->size(); ++i) {
      const JsonView entry = list.child(std::to_string(i), (*entries)[i]);
      KVFS_ASSIGN(const JsonView id, entry.at("id"));
      KVFS_ASSIGN(const std::int64_t number, id.integer());
      KVFS_TRY(make_room(id, number, own + entries->size()));
      KVFS_ASSIGN(const JsonView content, entry.at("content"));
      KVFS_ASSIGN(std::string text, content.text());
      if (text.empty()) return content.wrong("it is empty");
      KVFS_ASSIGN(const bool special, entry.flag_or("special", false));
      AddedRule rule;
      KVFS_ASSIGN(rule.lstrip, entry.flag_or("lstrip", false));
      KVFS_ASSIGN(rule.rstrip, entry.flag_or("rstrip", false));
      KVFS_ASSIGN(rule.single_word, entry.flag_or("single_word", false));
      KVFS_ASSIGN(rule.normalized, entry.flag_or("normalized", !special));
      SpelledToken& token = spec_.tokens[static_cast<std::size_t>(number)];
      const bool known = token.kind == TokenKind::kPlain && token.text == text;
      if (token.kind == TokenKind::kPlain && !known) {
        return entry.wrong("id " + std::to_string(number) + " is the vocabulary's \"" +
                           token.text.substr(0, 40) + "\"");
      }
      // Looked for after the normalizer, so as the normalizer writes it.
      rule.normalized = rule.normalized && !spec_.normalizer.empty();
      if (rule.normalized) text = spec_.normalizer.apply(text, Before::kAddedToken);
      if (text.empty()) return content.wrong("nothing is left of it once it is normalized");
      token.mergeable = known && !special;
      token.text = text;
      token.kind = special ? TokenKind::kControl : TokenKind::kUserDefined;
      const bool any = rule.lstrip || rule.rstrip || rule.single_word || rule.normalized;
      if (any) spec_.rules.emplace_back(static_cast<TokenId>(number), rule);
      ids_[text] = static_cast<TokenId>(number);
    }
    return {};
  }

  void name_bytes() {
    if (!spec_.byte_fallback) return;
    for (SpelledToken& token : spec_.tokens) {
      const bool spelled = token.text.size() == 6 && token.text.starts_with("<0x");
      if (spelled && token.kind == TokenKind::kPlain) token.kind = TokenKind::kByte;
    }
  }

  Status read_bpe(const JsonView& model) {
    for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      KVFS_ASSIGN(const std::string text, model.text_or(affix, ""));
      if (!text.empty()) return model.unsupported(affix, "parts of words that are marked so");
    }
    if (model.has("dropout")) {
      KVFS_ASSIGN(const JsonView dropout, model.at("dropout"));
      KVFS_ASSIGN(const double rate, dropout.number());
      if (rate != 0) return model.unsupported("dropout", "merges that are left out by chance");
    }
    KVFS_ASSIGN(spec_.ignores_merges, model.flag_or("ignore_merges", false));
    KVFS_ASSIGN(spec_.fuses_unknown, model.flag_or("fuse_unk", false));
    KVFS_ASSIGN(const std::string unknown, model.text_or("unk_token", ""));
    if (!unknown.empty() && spec_.algorithm == Algorithm::kLetterBpe) {
      const auto found = ids_.find(unknown);
      if (found == ids_.end()) {
        return fail(ErrorCode::kInvalid, model.place() + ".unk_token",
                    "\"" + unknown.substr(0, 40) + "\" is not a token");
      }
      spec_.unknown = found->second;
      SpelledToken& token = spec_.tokens[static_cast<std::size_t>(spec_.unknown)];
      if (token.kind == TokenKind::kPlain) token.kind = TokenKind::kUnknown;
    }
    return read_merges(model);
  }

  Status read_merges(const JsonView& model) {
    KVFS_ASSIGN(const JsonView list, model.at("merges"));
    KVFS_ASSIGN(const boost::json::array* entries, list.array());
    if (entries->size() > std::numeric_limits<std::uint32_t>::max()) return list.wrong("too many");
    spec_.merges.reserve(entries->size());
    for (std::size_t i = 0; i < entries->size(); ++i) {
      const JsonView entry = list.child(std::to_string(i), (*entries)[i]);
      std::string left, right;
      if (const auto* pair = (*entries)[i].if_array(); pair && pair->size() == 2) {
        KVFS_ASSIGN(left, entry.child("0", (*pair)[0]).text());
        KVFS_ASSIGN(right, entry.child("1", (*pair)[1]).text());
      } else {
        KVFS_ASSIGN(const std::string line, entry.text());
        const std::size_t space = line.find(' ', 1);
        if (space == std::string::npos) return entry.wrong("it is no pair");
        left = line.substr(0, space);
        right = line.substr(space + 1);
      }
      const auto a = ids_.find(left), b = ids_.find(right), ab = ids_.find(left + right);
      if (a == ids_.end() || b == ids_.end()) return entry.wrong("it joins what is not a token");
      if (ab == ids_.end()) return entry.wrong("it makes what is not a token");
      const auto merges = [this](TokenId id) {
        const SpelledToken& token = spec_.tokens[static_cast<std::size_t>(id)];
        return token.kind == TokenKind::kPlain || token.mergeable;
      };
      // What merging would make of such a pair is an added token, which only its spelling gives.
      if (!merges(a->second) || !merges(b->second) || !merges(ab->second)) continue;
      spec_.merges.push_back({a->second, b->second, ab->second, static_cast<std::uint32_t>(i)});
    }
    return {};
  }

  Status read_begin() {
    if (!root_.has("post_processor")) return {};
    KVFS_ASSIGN(const JsonView top, root_.at("post_processor"));
    std::vector<JsonView> steps;
    KVFS_TRY(flatten(top, "processors", steps));
    for (const JsonView& step : steps) {
      KVFS_ASSIGN(const std::string type, step.text_at("type"));
      if (type == "ByteLevel") continue;
      if (type == "RobertaProcessing" || type == "BertProcessing") {
        KVFS_ASSIGN(const JsonView start, step.at("cls"));
        KVFS_ASSIGN(const boost::json::array* pair, start.array());
        if (pair->size() != 2) return start.wrong("it is no pair of a token and its id");
        KVFS_TRY(begin_with(start.child("0", (*pair)[0])));
      } else if (type == "TemplateProcessing") {
        KVFS_TRY(read_template(step));
      } else {
        return step.unsupported("type", "the post-processor \"" + type + "\" is not known");
      }
    }
    return {};
  }

  Status read_template(const JsonView& step) {
    KVFS_ASSIGN(const JsonView single, step.at("single"));
    KVFS_ASSIGN(const boost::json::array* parts, single.array());
    for (std::size_t i = 0; i < parts->size(); ++i) {
      const JsonView part = single.child(std::to_string(i), (*parts)[i]);
      if (part.has("Sequence")) return {};
      KVFS_ASSIGN(const JsonView token, part.at("SpecialToken"));
      KVFS_ASSIGN(const JsonView id, token.at("id"));
      KVFS_TRY(begin_with(id));
    }
    return {};
  }

  Status begin_with(const JsonView& spelled) {
    KVFS_ASSIGN(const std::string text, spelled.text());
    const auto found = ids_.find(text);
    if (found == ids_.end()) return spelled.wrong("\"" + text.substr(0, 40) + "\" is not a token");
    spec_.begin.push_back(found->second);
    return {};
  }

  JsonView root_;
  TokenizerSpec spec_;
  std::unordered_map<std::string, TokenId> ids_;
};

}  // namespace

Result<TokenizerSpec> read_json_tokenizer(std::string_view json, const std::string& where) {
  KVFS_ASSIGN(const boost::json::value value, parse_json(json, where));
  KVFS_ASSIGN(TokenizerSpec spec, Reader(JsonView(value, where + ": ")).read());
  return spec;
}

}  // namespace kvfs::text

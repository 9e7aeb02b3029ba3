// The text parts of a Hugging Face folder: tokenizer.json or tokenizer.model, and what
// tokenizer_config.json, generation_config.json and config.json say beside it.
#include <algorithm>
#include <array>
#include <fstream>

#include "engine/text/chat_template.h"
#include "engine/text/json_view.h"
#include "engine/text/readers.h"

namespace kvfs::text {
namespace {

constexpr std::size_t kMostBytes = std::size_t{256} << 20;
constexpr std::string_view kTurnEnds[] = {"<|im_end|>",    "<|eot_id|>", "<|end_of_turn|>",
                                          "<end_of_turn>", "<|end|>",    "<|endoftext|>"};

// A JSON file of the folder; null where it is not there.
struct Document {
  boost::json::value value;
  std::string where;
  JsonView view() const { return {value, where + ": "}; }
};
Result<Document> document(const std::filesystem::path& path) {
  Document out{nullptr, path.string()};
  if (!std::filesystem::exists(path)) return out;
  KVFS_ASSIGN(const std::string text, read_text_file(path, kMostBytes));
  KVFS_ASSIGN(out.value, parse_json(text, out.where));
  return out;
}

// "bos_token": a string, or an added token with its content.
Result<std::string> spelling_at(const JsonView& config, const char* name) {
  if (!config.has(name)) return std::string();
  KVFS_ASSIGN(const JsonView token, config.at(name));
  return token.has("content") ? token.text_at("content") : token.text();
}

Result<std::string> chat_template_text(const std::filesystem::path& folder, std::string& field) {
  const auto own = folder / "chat_template.jinja";
  field = own.string();
  if (std::filesystem::exists(own)) return read_text_file(own, jinja::kMaxTemplateBytes);
  KVFS_ASSIGN(const Document config, document(folder / "tokenizer_config.json"));
  field = config.where + ": chat_template";
  if (!config.view().has("chat_template")) {
    return fail(ErrorCode::kNotFound, field, "the model has no chat template",
                "use the model with template=raw");
  }
  KVFS_ASSIGN(const JsonView entry, config.view().at("chat_template"));
  const auto list = entry.array();
  if (!list) return entry.text();
  for (std::size_t i = 0; i < (*list)->size(); ++i) {
    const JsonView named = entry.child(std::to_string(i), (**list)[i]);
    KVFS_ASSIGN(const std::string name, named.text_at("name"));
    if (name == "default") return named.text_at("template");
  }
  return entry.wrong("none of its templates is named default");
}

class Folder {
 public:
  explicit Folder(std::filesystem::path path) : path_(std::move(path)) {}

  Result<std::unique_ptr<Tokenizer>> load(std::int32_t rows) {
    const auto json = path_ / "tokenizer.json";
    const auto model = path_ / "tokenizer.model";
    const bool has_json = std::filesystem::exists(json);
    if (!has_json && !std::filesystem::exists(model)) {
      return fail(ErrorCode::kNotFound, path_.string(),
                  "it has neither tokenizer.json nor tokenizer.model",
                  "copy one of them from the model's page");
    }
    const auto& file = has_json ? json : model;
    KVFS_ASSIGN(const std::string bytes, read_text_file(file, kMostBytes));
    KVFS_ASSIGN(spec_, has_json ? read_json_tokenizer(bytes, file.string())
                                : read_sentencepiece(bytes, file.string()));
    KVFS_TRY(keep_rows(spec_, rows, file.string() + (has_json ? ": model.vocab" : ": pieces")));
    KVFS_TRY(read_config(!has_json));
    for (const char* name : {"generation_config.json", "config.json"}) {
      KVFS_TRY(read_ends(path_ / name));
    }
    add_turn_ends();
    auto built = Pipeline::build(std::move(spec_));
    if (!built) built.error().what = file.string() + ": " + built.error().what;
    return built;
  }

 private:
  void add_end(TokenId id) {
    if (std::find(spec_.end.begin(), spec_.end.end(), id) == spec_.end.end()) {
      spec_.end.push_back(id);
    }
  }

  TokenId find(std::string_view spelling) const {
    const auto found =
        std::find_if(spec_.tokens.begin(), spec_.tokens.end(), [&](const SpelledToken& token) {
          return token.kind != TokenKind::kUnused && token.text == spelling;
        });
    return found == spec_.tokens.end() ? kNoToken
                                       : static_cast<TokenId>(found - spec_.tokens.begin());
  }

  Status read_config(bool decides_begin) {
    KVFS_ASSIGN(const Document config, document(path_ / "tokenizer_config.json"));
    KVFS_ASSIGN(const std::string eos, spelling_at(config.view(), "eos_token"));
    if (!eos.empty()) {
      const TokenId id = find(eos);
      if (id == kNoToken) {
        return fail(ErrorCode::kInvalid, config.where + ": eos_token",
                    "\"" + eos.substr(0, 40) + "\" is not a token", "fetch the file again");
      }
      add_end(id);
    }
    if (!decides_begin) return {};
    KVFS_ASSIGN(const bool begins, config.view().flag_or("add_bos_token", true));
    if (!begins) spec_.begin.clear();
    return {};
  }

  // eos_token_id: an id or several.
  Status read_ends(const std::filesystem::path& path) {
    KVFS_ASSIGN(const Document config, document(path));
    if (!config.view().has("eos_token_id")) return {};
    KVFS_ASSIGN(const JsonView field, config.view().at("eos_token_id"));
    std::vector<JsonView> ids = {field};
    if (const auto list = field.array()) {
      ids.clear();
      for (std::size_t i = 0; i < (*list)->size(); ++i) {
        ids.push_back(field.child(std::to_string(i), (**list)[i]));
      }
    }
    for (const JsonView& one : ids) {
      KVFS_ASSIGN(const std::int64_t id, one.integer());
      if (id < 0 || static_cast<std::size_t>(id) >= spec_.tokens.size()) {
        return one.wrong("id " + std::to_string(id) + " of a vocabulary of " +
                         std::to_string(spec_.tokens.size()));
      }
      add_end(static_cast<TokenId>(id));
    }
    return {};
  }

  // Turns end where the template says so, whatever the configuration forgot.
  void add_turn_ends() {
    std::string field;
    const auto chat = chat_template_text(path_, field);
    if (!chat) return;
    for (const std::string_view spelling : kTurnEnds) {
      const TokenId id = chat->find(spelling) == std::string::npos ? kNoToken : find(spelling);
      if (id == kNoToken) continue;
      if (spec_.tokens[static_cast<std::size_t>(id)].kind == TokenKind::kControl) add_end(id);
    }
  }

  std::filesystem::path path_;
  TokenizerSpec spec_;
};

}  // namespace

Result<std::string> read_text_file(const std::filesystem::path& path, std::size_t most) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    return fail(ErrorCode::kInvalid, path.string(), "it is no regular file");
  }
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  if (error || size > most) {
    return fail(ErrorCode::kTooLarge, path.string(),
                std::to_string(size) + " bytes, the most is " + std::to_string(most));
  }
  std::string out(size, '\0');
  std::ifstream file(path, std::ios::binary);
  if (!file.read(out.data(), static_cast<std::streamsize>(size))) {
    return fail(ErrorCode::kIo, path.string(), "it cannot be read");
  }
  return out;
}

Result<std::unique_ptr<Tokenizer>> load_tokenizer(const std::filesystem::path& folder,
                                                  std::int32_t rows) {
  return Folder(folder).load(rows);
}

Result<std::unique_ptr<ChatTemplate>> load_chat_template(const std::filesystem::path& folder,
                                                         const Tokenizer& tokenizer) {
  std::string field;
  KVFS_ASSIGN(const std::string source, chat_template_text(folder, field));
  KVFS_ASSIGN(const Document config, document(folder / "tokenizer_config.json"));
  TemplateTokens tokens;
  KVFS_ASSIGN(tokens.bos, spelling_at(config.view(), "bos_token"));
  KVFS_ASSIGN(tokens.eos, spelling_at(config.view(), "eos_token"));
  return told_where(ChatTemplate::load(source, std::move(tokens), tokenizer), field);
}

}  // namespace kvfs::text

#include "engine/text/chat_template.h"

#include "engine/text/chatml.h"

namespace kvfs::text {

Result<std::unique_ptr<ChatTemplate>> load_chat_template(const container::GgufFile& file,
                                                         const Tokenizer& tokenizer) {
  constexpr const char* kField = "tokenizer.chat_template";
  const std::string field = file.path().string() + ": " + kField;
  if (!file.has(kField)) {
    return fail(ErrorCode::kNotFound, field, "the model has no chat template",
                "use the model with template=raw");
  }
  KVFS_ASSIGN(const std::string jinja, file.string_at(kField));
  auto loaded = ChatMlTemplate::load(jinja, tokenizer);
  if (!loaded && loaded.error().code == ErrorCode::kUnsupported) loaded.error().what = field;
  return loaded;
}

}  // namespace kvfs::text

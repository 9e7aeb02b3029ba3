#include "engine/text/jinja/template.h"

#include "engine/text/jinja/interpreter.h"

namespace kvfs::text::jinja {

Result<Template> Template::parse(std::string_view source) {
  KVFS_ASSIGN(Node body, jinja::parse(source));
  return Template(std::move(body));
}

Result<std::string> Template::render(const Conversation& conversation) const {
  std::string out;
  Interpreter interpreter(conversation.now, out);
  Heap& heap = interpreter.heap();
  const auto text = [](const std::string& bytes) {
    return Value(std::make_shared<const std::string>(bytes));
  };
  List* messages = heap.list();
  for (const Message& message : conversation.messages) {
    Dict* dict = heap.dict();
    dict->set("role", text(message.role));
    dict->set("content", text(message.content));
    messages->items.push_back(dict);
  }
  interpreter.set("messages", messages);
  interpreter.set("add_generation_prompt", conversation.add_generation_prompt);
  interpreter.set("bos_token", text(conversation.bos_token));
  interpreter.set("eos_token", text(conversation.eos_token));
  interpreter.set("tools", None{});
  interpreter.set("documents", None{});
  KVFS_TRY(interpreter.run(body_));
  return out;
}

}  // namespace kvfs::text::jinja

#include "engine/text/jinja/methods.h"

#include "engine/text/jinja/text_methods.h"

namespace kvfs::text::jinja {
namespace {

Result<Value> dict_method(std::string_view name, const Value& object, const Arguments& given,
                          Heap& heap) {
  if (name == "items") return pairs_of(object, heap);
  if (name == "get") {
    const Value* key = given.get(0, "key");
    const Value* otherwise = given.get(1, "default");
    if (!key) return refuse("get() needs a key");
    KVFS_TRY(heap.budget.spend(object.dict()->items.size()));
    const Value* found = key->text() ? object.dict()->find(*key->text()) : nullptr;
    return found ? *found : otherwise ? *otherwise : Value(None{});
  }
  std::vector<Value> out;
  KVFS_TRY(heap.budget.spend(object.dict()->items.size()));
  for (const auto& [key, value] : object.dict()->items) out.push_back(name == "keys" ? key : value);
  return heap.list(std::move(out));
}

}  // namespace

Result<Value> method_of(const Value& object, std::string_view name, Heap& heap) {
  static constexpr std::string_view kOfDicts[] = {"get", "items", "keys", "values"};
  const auto bound = [&](auto call) -> Value {
    return heap.function({std::string(name), std::move(call)});
  };
  KVFS_TRY(heap.budget.spend(sizeof(Function)));
  if (object.text() && is_text_method(name)) {
    const String* text = object.as<String>();
    return bound([text = *text, name = std::string(name), &heap](const Arguments& given) {
      return text_method(name, *text, given, heap);
    });
  }
  if (object.dict() && is_one_of(name, kOfDicts) && !object.dict()->is_namespace) {
    return bound([object, name = std::string(name), &heap](const Arguments& given) {
      return dict_method(name, object, given, heap);
    });
  }
  return Value();
}

Value member_of(const Value& object, std::string_view name) {
  const Value* found = object.dict() ? object.dict()->find(name) : nullptr;
  return found ? *found : Value(Undefined{std::string(name)});
}

Result<Value> pairs_of(const Value& value, Heap& heap) {
  if (value.is_undefined()) return heap.list();
  if (!value.dict()) return refuse(std::string("the items of a ") + value.type_name());
  std::vector<Value> items;
  for (const auto& [key, one] : value.dict()->items) {
    KVFS_TRY(heap.budget.spend(8));
    items.emplace_back(heap.tuple({key, one}));
  }
  return heap.list(std::move(items));
}

}  // namespace kvfs::text::jinja

#include "engine/text/jinja/functions.h"

#include <array>

namespace kvfs::text::jinja {
namespace {

Result<Value> range(const Arguments& given, Heap& heap) {
  std::array<std::int64_t, 3> parts = {0, 0, 1};
  const std::size_t count = given.positional.size();
  if (count < 1 || count > 3) return refuse("range takes one to three numbers");
  for (std::size_t i = 0; i < count; ++i) {
    if (!given.positional[i].as<std::int64_t>()) return refuse("range takes integers");
    parts[count == 1 ? 1 : i] = given.positional[i].integer();
  }
  if (parts[2] == 0) return refuse("range's step is 0");
  std::vector<Value> items;
  for (std::int64_t i = parts[0]; parts[2] > 0 ? i < parts[1] : i > parts[1];) {
    KVFS_TRY(heap.budget.spend(sizeof(Value)));
    items.emplace_back(i);
    if (__builtin_add_overflow(i, parts[2], &i)) break;
  }
  return heap.list(std::move(items));
}

Result<Value> formatted_time(const Arguments& given, std::time_t now, Heap& heap) {
  const Value* format = given.get(0, "format");
  if (!format || !format->text()) return refuse("strftime_now takes a format");
  std::tm parts{};
  localtime_r(&now, &parts);
  std::array<char, 256> out{};
  return heap.text(
      {out.data(), std::strftime(out.data(), out.size(), format->text()->c_str(), &parts)});
}

Result<Value> raise(const Arguments& given, Heap& heap) {
  const Value* message = given.get(0, "message");
  KVFS_ASSIGN(const std::string why, str(message ? *message : Value(), heap.budget));
  return refuse("the template refuses the conversation: " + why);
}

Result<Value> made_dict(const Arguments& given, bool is_namespace, Heap& heap) {
  if (!given.positional.empty()) return unknown("a dictionary made of another");
  Dict* dict = heap.dict();
  dict->is_namespace = is_namespace;
  for (const auto& [name, value] : given.named) dict->set(name, value);
  return dict;
}

}  // namespace

Value global(std::string_view name, std::time_t now, Heap& heap) {
  const auto function = [&](auto call) -> Value {
    return heap.function({std::string(name), std::move(call)});
  };
  if (name == "range") {
    return function([&heap](const Arguments& given) { return range(given, heap); });
  }
  if (name == "namespace" || name == "dict") {
    return function([&heap, is_namespace = name == "namespace"](const Arguments& given) {
      return made_dict(given, is_namespace, heap);
    });
  }
  if (name == "raise_exception") {
    return function([&heap](const Arguments& given) { return raise(given, heap); });
  }
  if (name == "strftime_now") {
    return function(
        [&heap, now](const Arguments& given) { return formatted_time(given, now, heap); });
  }
  return Value();
}

}  // namespace kvfs::text::jinja

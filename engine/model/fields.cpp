#include "engine/model/fields.h"

#include <cmath>

namespace kvfs::model {
namespace {

namespace json = boost::json;

constexpr std::size_t kLongestArray = 65536;  // tokens and merges are read elsewhere

std::optional<json::value> as_json(const container::GgufValue& value) {
  if (const auto* array = std::get_if<container::GgufArray>(&value)) {
    if (array->strings.size() + array->integers.size() + array->reals.size() > kLongestArray)
      return std::nullopt;
    json::array out;
    for (const std::string& text : array->strings) out.emplace_back(text);
    for (const std::int64_t number : array->integers) out.emplace_back(number);
    for (const double number : array->reals) out.emplace_back(number);
    return out;
  }
  return std::visit(
      [](const auto& scalar) -> json::value {
        if constexpr (std::is_same_v<std::decay_t<decltype(scalar)>, container::GgufArray>)
          return nullptr;
        else if constexpr (std::is_same_v<std::decay_t<decltype(scalar)>, std::string>)
          return json::string(scalar);
        else
          return scalar;
      },
      value);
}

std::optional<double> number_of(const json::value& value) {
  if (const auto* number = value.if_double()) return *number;
  if (const auto* number = value.if_int64()) return static_cast<double>(*number);
  if (const auto* number = value.if_uint64()) return static_cast<double>(*number);
  return std::nullopt;
}

std::string shown(const json::value& value) {
  std::string text = json::serialize(value);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

std::string number_text(double number) { return shown(json::value(number)); }

}  // namespace

Fields Fields::of_json(json::object object, std::string what) {
  Fields fields;
  fields.values_ = std::move(object);
  fields.what_ = std::move(what);
  return fields;
}

Fields Fields::of_gguf(const container::GgufFile& file, const std::string& prefix) {
  Fields fields;
  fields.gguf_ = true;
  fields.what_ = "model " + file.path().string();
  fields.prefix_ = prefix + ".";
  for (const auto& [key, value] : file.metadata()) {
    if (!key.starts_with(fields.prefix_)) continue;
    if (auto converted = as_json(value)) {
      fields.values_[key.substr(fields.prefix_.size())] = *std::move(converted);
    }
  }
  return fields;
}

std::string Fields::name(Key key) const {
  const char* own = gguf_ ? key.gguf : key.hugging_face;
  return prefix_ + (own != nullptr ? own : "?");
}

const json::value* Fields::find(Key key) const {
  const char* own = gguf_ ? key.gguf : key.hugging_face;
  const json::value* value = own != nullptr ? values_.if_contains(own) : nullptr;
  return value != nullptr && !value->is_null() ? value : nullptr;
}

Result<const json::value*> Fields::at(Key key) const {
  if (const json::value* value = find(key)) return value;
  return refuse(ErrorCode::kNotFound, key, "is missing", "get the file again");
}

tl::unexpected<Error> Fields::refuse(ErrorCode code, Key key, const std::string& why,
                                     std::string way_out) const {
  return fail(code, what_, name(key) + " " + why, std::move(way_out));
}

Result<int> Fields::count(Key key, int most) const {
  KVFS_ASSIGN(const json::value* value, at(key));
  const std::optional<double> number = value->is_double() ? std::nullopt : number_of(*value);
  if (!number || *number < 1 || *number > most) {
    return refuse(
        ErrorCode::kInvalid, key,
        "is " + shown(*value) + ", wanted a whole number from 1 to " + std::to_string(most));
  }
  return static_cast<int>(*number);
}

Result<double> Fields::real(Key key, double least, double most) const {
  KVFS_ASSIGN(const json::value* value, at(key));
  const std::optional<double> number = number_of(*value);
  if (!number || !(*number >= least && *number <= most)) {
    return refuse(ErrorCode::kInvalid, key,
                  "is " + shown(*value) + ", wanted a number from " + number_text(least) + " to " +
                      number_text(most));
  }
  return *number;
}

Result<std::string> Fields::text(Key key) const {
  KVFS_ASSIGN(const json::value* value, at(key));
  if (const auto* text = value->if_string()) return std::string(*text);
  return refuse(ErrorCode::kInvalid, key, "is " + shown(*value) + ", wanted a string");
}

Result<std::vector<double>> Fields::reals(Key key, double least, double most) const {
  KVFS_ASSIGN(const json::value* value, at(key));
  std::vector<double> out;
  if (const auto* array = value->if_array()) {
    for (const json::value& element : *array) {
      const std::optional<double> number = number_of(element);
      if (!number || !(*number >= least && *number <= most)) {
        return refuse(ErrorCode::kInvalid, key,
                      "has " + shown(element) + ", wanted numbers from " + number_text(least) +
                          " to " + number_text(most));
      }
      out.push_back(*number);
    }
    return out;
  }
  return refuse(ErrorCode::kInvalid, key, "is " + shown(*value) + ", wanted a list of numbers");
}

Result<std::vector<std::string>> Fields::texts(Key key) const {
  KVFS_ASSIGN(const json::value* value, at(key));
  std::vector<std::string> out;
  if (const auto* array = value->if_array()) {
    for (const json::value& element : *array) {
      if (!element.is_string())
        return refuse(ErrorCode::kInvalid, key, "has " + shown(element) + ", wanted strings");
      out.emplace_back(element.get_string());
    }
    return out;
  }
  return refuse(ErrorCode::kInvalid, key, "is " + shown(*value) + ", wanted a list of strings");
}

Result<Fields> Fields::object(Key key) const {
  KVFS_ASSIGN(const json::value* value, at(key));
  if (!value->is_object())
    return refuse(ErrorCode::kInvalid, key, "is " + shown(*value) + ", wanted an object");
  Fields inner = of_json(value->get_object(), what_);
  inner.prefix_ = name(key) + ".";
  return inner;
}

Result<int> Fields::count_or(Key key, int otherwise, int most) const {
  if (!has(key)) return otherwise;
  return count(key, most);
}
Result<double> Fields::real_or(Key key, double otherwise, double least, double most) const {
  if (!has(key)) return otherwise;
  return real(key, least, most);
}
Result<bool> Fields::flag_or(Key key, bool otherwise) const {
  const json::value* value = find(key);
  if (value == nullptr) return otherwise;
  if (const auto* flag = value->if_bool()) return *flag;
  return refuse(ErrorCode::kInvalid, key, "is " + shown(*value) + ", wanted true or false");
}
Result<std::string> Fields::text_or(Key key, std::string otherwise) const {
  if (!has(key)) return otherwise;
  return text(key);
}

}  // namespace kvfs::model

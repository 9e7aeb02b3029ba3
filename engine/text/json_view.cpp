#include "engine/text/json_view.h"

#include <cmath>

namespace kvfs::text {

JsonView JsonView::child(std::string_view name, const boost::json::value& value) const {
  const bool top = place_.ends_with(": ");
  return {value, place_ + (top ? "" : ".") + std::string(name)};
}

bool JsonView::has(std::string_view name) const {
  const auto* members = value_->if_object();
  const auto* found = members ? members->if_contains(name) : nullptr;
  return found && !found->is_null();
}

Result<JsonView> JsonView::at(std::string_view name) const {
  if (!value_->is_object()) return wrong("it is no object");
  if (!has(name)) {
    return fail(ErrorCode::kInvalid, child(name, *value_).place(), "it is missing",
                "fetch the file again");
  }
  return child(name, *value_->as_object().if_contains(name));
}

Result<std::string> JsonView::text_at(std::string_view name) const {
  KVFS_ASSIGN(const JsonView member, at(name));
  return member.text();
}

Result<std::string> JsonView::text_or(std::string_view name, std::string otherwise) const {
  if (!has(name)) return otherwise;
  return text_at(name);
}

Result<bool> JsonView::flag_or(std::string_view name, bool otherwise) const {
  if (!has(name)) return otherwise;
  KVFS_ASSIGN(const JsonView member, at(name));
  return member.flag();
}

Result<std::string> JsonView::text() const {
  const auto* text = value_->if_string();
  if (!text) return wrong("it is no string");
  return std::string(*text);
}

Result<std::int64_t> JsonView::integer() const {
  const auto* number = value_->if_int64();
  if (!number) return wrong("it is no integer");
  return *number;
}

Result<double> JsonView::number() const {
  if (const auto* number = value_->if_int64()) return static_cast<double>(*number);
  const auto* number = value_->if_double();
  if (!number || !std::isfinite(*number)) return wrong("it is no number");
  return *number;
}

Result<bool> JsonView::flag() const {
  const auto* flag = value_->if_bool();
  if (!flag) return wrong("it is neither true nor false");
  return *flag;
}

Result<const boost::json::object*> JsonView::object() const {
  const auto* members = value_->if_object();
  if (!members) return wrong("it is no object");
  return members;
}

Result<const boost::json::array*> JsonView::array() const {
  const auto* items = value_->if_array();
  if (!items) return wrong("it is no list");
  return items;
}

tl::unexpected<Error> JsonView::wrong(std::string why) const {
  return fail(ErrorCode::kInvalid, place_, std::move(why), "fetch the file again");
}

tl::unexpected<Error> JsonView::unsupported(std::string_view member, std::string why) const {
  return fail(ErrorCode::kUnsupported, child(member, *value_).place(), std::move(why),
              "use a GGUF of the model");
}

Result<boost::json::value> parse_json(std::string_view text, const std::string& where) {
  constexpr std::size_t kDepth = 32;
  boost::json::parse_options options;
  options.max_depth = kDepth;
  boost::json::error_code error;
  boost::json::value value = boost::json::parse(text, error, {}, options);
  if (error) {
    return fail(ErrorCode::kInvalid, where, "it is no JSON: " + error.message(),
                "fetch the file again");
  }
  return value;
}

Status flatten(const JsonView& component, std::string_view list, std::vector<JsonView>& out) {
  KVFS_ASSIGN(const std::string type, component.text_at("type"));
  if (type != "Sequence") {
    out.push_back(component);
    return {};
  }
  KVFS_ASSIGN(const JsonView parts, component.at(list));
  KVFS_ASSIGN(const boost::json::array* items, parts.array());
  for (std::size_t i = 0; i < items->size(); ++i) {
    KVFS_TRY(flatten(parts.child(std::to_string(i), (*items)[i]), list, out));
  }
  return {};
}

}  // namespace kvfs::text

// A place in a JSON document, for readers that must say which field is wrong.
//
// Does not own the document. Errors name the file and the path: "tokenizer.json: model.vocab.3".
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <boost/json.hpp>

#include "codec/base/result.h"

namespace kvfs::text {

class JsonView {
 public:
  JsonView(const boost::json::value& value, std::string place)
      : value_(&value), place_(std::move(place)) {}

  const std::string& place() const { return place_; }
  JsonView child(std::string_view name, const boost::json::value& value) const;

  // Members of an object; null counts as missing.
  bool has(std::string_view name) const;
  Result<JsonView> at(std::string_view name) const;
  Result<std::string> text_at(std::string_view name) const;
  Result<std::string> text_or(std::string_view name, std::string otherwise) const;
  Result<bool> flag_or(std::string_view name, bool otherwise) const;

  Result<std::string> text() const;
  Result<std::int64_t> integer() const;
  Result<double> number() const;
  Result<bool> flag() const;
  Result<const boost::json::object*> object() const;
  Result<const boost::json::array*> array() const;

  tl::unexpected<Error> wrong(std::string why) const;
  tl::unexpected<Error> unsupported(std::string_view member, std::string why) const;

 private:
  const boost::json::value* value_;
  std::string place_;
};

// kInvalid says where the text is no JSON; nesting is limited.
Result<boost::json::value> parse_json(std::string_view text, const std::string& where);

// A component, or the parts of a Sequence, to the leaves; `list` names a Sequence's parts.
Status flatten(const JsonView& component, std::string_view list, std::vector<JsonView>& out);

}  // namespace kvfs::text

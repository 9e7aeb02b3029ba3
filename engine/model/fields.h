// Hyper-parameters by name, from config.json and from GGUF metadata alike, each checked where it is
// read. Errors name the file, the field, its value and what was wanted.
//
// A value; copies share nothing with the file. Any thread.
#pragma once

#include <boost/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "codec/base/result.h"
#include "codec/container/gguf.h"

namespace kvfs::model {

// What a field is called in config.json and, without the family in front, in GGUF metadata. Null:
// that form does not have it.
struct Key {
  const char* hugging_face;
  const char* gguf;
};

class Fields {
 public:
  Fields() = default;
  // what: names the file in errors.
  static Fields of_json(boost::json::object object, std::string what);
  // The scalars and the short arrays under "prefix.".
  static Fields of_gguf(const container::GgufFile& file, const std::string& prefix);

  bool is_gguf() const { return gguf_; }
  bool has(Key key) const { return find(key) != nullptr; }  // null counts as absent
  std::string name(Key key) const;

  // kNotFound when absent, kInvalid when of another kind or out of range.
  Result<int> count(Key key, int most = kMostCount) const;  // 1 … most
  Result<double> real(Key key, double least, double most) const;
  Result<std::string> text(Key key) const;
  Result<std::vector<double>> reals(Key key, double least, double most) const;
  Result<std::vector<std::string>> texts(Key key) const;
  Result<Fields> object(Key key) const;

  Result<int> count_or(Key key, int otherwise, int most = kMostCount) const;
  Result<double> real_or(Key key, double otherwise, double least, double most) const;
  Result<bool> flag_or(Key key, bool otherwise) const;
  Result<std::string> text_or(Key key, std::string otherwise) const;

  // "model FILE: FIELD why"
  tl::unexpected<Error> refuse(ErrorCode code, Key key, const std::string& why,
                               std::string way_out = {}) const;

  static constexpr int kMostCount = 1 << 24;

 private:
  const boost::json::value* find(Key key) const;
  Result<const boost::json::value*> at(Key key) const;

  boost::json::object values_;
  std::string what_;
  std::string prefix_;  // of names in errors
  bool gguf_ = false;
};

}  // namespace kvfs::model

// The 10,000 texts of goldens/make_tokenizers.py, made here from the same seed, and the hash of
// what a tokenizer makes of them.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/text/tokenizer.h"
#include "engine/text/utf8.h"
#include "tests/engine/text/golden_lines.h"

namespace kvfs::text {

class MadeTexts {
 public:
  MadeTexts() : stock_(boost::json::parse(file_text("goldens/texts.json"))) {}

  std::string next() {
    if (made_++ % 10 == 9) return broken();
    std::string out;
    for (std::uint64_t parts = 1 + roll(12); parts > 0; --parts) {
      const std::uint64_t kind = roll(10);
      if (kind < 5) {
        out += pick("words") + " ";
      } else if (kind == 5) {
        out += pick("markers");
      } else if (kind == 6) {
        out += pick("spaces");
      } else if (kind == 7) {
        const auto& ranges = stock_.at("ranges").as_array();
        const auto& range = ranges[roll(ranges.size())];
        const auto low = range.at(0).to_number<std::uint64_t>();
        const auto high = range.at(1).to_number<std::uint64_t>();
        for (std::uint64_t count = 1 + roll(5); count > 0; --count) {
          append_utf8(static_cast<std::uint32_t>(low + roll(high - low + 1)), out);
        }
      } else if (kind == 8) {
        out += std::to_string(roll(100000));
      } else {
        const std::string word = pick("words");
        const std::string letter = word.substr(0, code_point(word).length);
        for (std::uint64_t count = 1 + roll(60); count > 0; --count) out += letter;
      }
    }
    return out;
  }

 private:
  std::uint64_t roll(std::uint64_t sides) {
    state_ ^= state_ << 13U;
    state_ ^= state_ >> 7U;
    state_ ^= state_ << 17U;
    return (state_ >> 11U) % sides;
  }
  std::string pick(const char* list) {
    const auto& items = stock_.at(list).as_array();
    return text_of(items[roll(items.size())]);
  }
  std::string broken() {  // any bytes, what is not UTF-8 replaced as Python does
    std::string bytes;
    for (std::uint64_t count = 1 + roll(40); count > 0; --count) {
      bytes += static_cast<char>(roll(256));
    }
    Utf8Stream stream;
    std::string out = stream.push(bytes);
    return out + stream.finish();
  }

  boost::json::value stock_;
  std::uint64_t state_ = 88172645463325252;
  std::size_t made_ = 0;
};

// Compares with goldens/hashes.json, and says in which hundred of texts the first difference lies.
inline void expect_golden(const std::string& name,
                          const std::function<std::vector<TokenId>(const std::string&)>& encode) {
  const auto goldens = boost::json::parse(file_text("goldens/hashes.json"));
  const auto& wanted = goldens.at(name).as_array();
  ASSERT_EQ(wanted.size(), 100U);
  MadeTexts texts;
  std::uint64_t state = 0xCBF29CE484222325;
  for (std::size_t i = 0; i < 10'000; ++i) {
    std::vector<TokenId> ids = encode(texts.next());
    ids.push_back(-1);
    for (const TokenId id : ids) {
      for (unsigned shift = 0; shift < 32; shift += 8) {
        state = (state ^ (static_cast<std::uint32_t>(id) >> shift & 0xFFU)) * 0x100000001B3;
      }
    }
    if (i % 100 != 99) continue;
    char hex[17];
    std::snprintf(hex, sizeof hex, "%016llx", static_cast<unsigned long long>(state));
    ASSERT_EQ(hex, text_of(wanted[i / 100]))
        << name << ": differs in texts " << i - 99 << " to " << i;
  }
}

}  // namespace kvfs::text

#include "codec/container/pickle_machine.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <utility>

#include "codec/container/pickle_opcodes.h"
#include "codec/container/quote.h"

namespace kvfs::container {
namespace {

constexpr std::uint8_t kNewestProtocol = 5;
constexpr char kWayOut[] =
    "save the cache again with torch.save, as (key, value) tensors a layer or a DynamicCache";

}  // namespace

tl::unexpected<Error> PickleMachine::corrupt(std::string why) const {
  return fail(ErrorCode::kCorrupt, "pickle, byte " + std::to_string(at_),
              "opcode " + opcode_name(opcode_) + " " + std::move(why), "write the file again");
}

tl::unexpected<Error> PickleMachine::refuse(std::string why) const {
  return fail(ErrorCode::kInvalid, "pickle, byte " + std::to_string(at_),
              "opcode " + opcode_name(opcode_) + " " + std::move(why), kWayOut);
}

Result<PickleTree> PickleMachine::run() {
  while (true) {
    if (at_ == bytes_.size()) {
      return fail(ErrorCode::kCorrupt, "pickle",
                  "it ends at byte " + std::to_string(at_) + " without the opcode STOP",
                  "write the file again");
    }
    opcode_ = bytes_[at_++];
    if (opcode_ == kStop) break;
    KVFS_TRY(step(opcode_));
  }
  KVFS_ASSIGN(tree_.root, pop());
  if (!unknown_.empty()) {
    opcode_ = kGlobal;
    return refuse("names " + unknown_ +
                  ", which is none of the names that tensors and caches need");
  }
  tree_.size = at_;
  return std::move(tree_);
}

Status PickleMachine::step(std::uint8_t opcode) {
  switch (opcode) {
    case kProto: {
      KVFS_ASSIGN(const std::uint64_t version, take_number(1));
      if (version > kNewestProtocol) {
        return refuse("asks for protocol " + std::to_string(version) + ", newer than 5");
      }
      return {};
    }
    case kFrame: {
      KVFS_ASSIGN(const std::uint64_t size, take_number(8));
      if (size > bytes_.size() - at_) return corrupt("names more bytes than follow");
      return {};
    }
    case kNone:
      return push({.kind = Kind::kNone});
    case kNewTrue:
    case kNewFalse:
      return push({.kind = Kind::kBool, .integer = opcode == kNewTrue});
    case kInt:
    case kBinInt:
    case kBinInt1:
    case kBinInt2:
    case kLong:
    case kLong1:
    case kLong4:
    case kFloat:
    case kBinFloat:
      return step_number(opcode);
    case kString:
    case kBinString:
    case kShortBinString:
    case kUnicode:
    case kBinUnicode:
    case kShortBinUnicode:
    case kBinUnicode8:
    case kBinBytes:
    case kShortBinBytes:
    case kBinBytes8:
    case kByteArray8:
      return step_text(opcode);
    case kPut:
    case kBinPut:
    case kLongBinPut:
    case kMemoize:
    case kGet:
    case kBinGet:
    case kLongBinGet:
      return step_memo(opcode);
    case kGlobal:
    case kStackGlobal:
    case kReduce:
    case kNewObj:
    case kNewObjEx:
    case kBuild:
    case kInst:
    case kObj:
    case kPersId:
    case kBinPersId:
      return step_object(opcode);
    default:
      return step_container(opcode);
  }
}

Status PickleMachine::step_number(std::uint8_t opcode) {
  switch (opcode) {
    case kBinInt: {
      KVFS_ASSIGN(const std::uint64_t value, take_number(4));
      return push({.kind = Kind::kInt, .integer = static_cast<std::int32_t>(value)});
    }
    case kBinInt1:
    case kBinInt2: {
      KVFS_ASSIGN(const std::uint64_t value, take_number(opcode == kBinInt1 ? 1 : 2));
      return push({.kind = Kind::kInt, .integer = static_cast<std::int64_t>(value)});
    }
    case kLong1:
    case kLong4: {
      KVFS_ASSIGN(const ByteSpan digits, take_counted(opcode == kLong1 ? 1 : 4));
      return push_whole_number(digits);
    }
    case kBinFloat: {
      KVFS_ASSIGN(const std::uint64_t bits, take_number(8));
      return push({.kind = Kind::kFloat, .number = std::bit_cast<double>(__builtin_bswap64(bits))});
    }
    case kFloat: {
      KVFS_ASSIGN(const std::string_view text, take_line());
      return push_float(text);
    }
    default: {  // INT, LONG
      KVFS_ASSIGN(const std::string_view text, take_line());
      return push_decimal(text);
    }
  }
}

Status PickleMachine::step_text(std::uint8_t opcode) {
  switch (opcode) {
    case kString: {
      KVFS_ASSIGN(const std::string_view text, take_line());
      return push_quoted(text);
    }
    case kUnicode: {
      KVFS_ASSIGN(const std::string_view text, take_line());
      return push_unicode(text);
    }
    default:
      break;
  }
  const bool is_text = opcode == kBinString || opcode == kShortBinString || opcode == kBinUnicode ||
                       opcode == kShortBinUnicode || opcode == kBinUnicode8;
  const std::size_t width =
      opcode == kShortBinString || opcode == kShortBinUnicode || opcode == kShortBinBytes ? 1
      : opcode == kBinUnicode8 || opcode == kBinBytes8 || opcode == kByteArray8           ? 8
                                                                                          : 4;
  KVFS_ASSIGN(const ByteSpan bytes, take_counted(width));
  return push({.kind = is_text ? Kind::kStr : Kind::kBytes, .bytes = bytes});
}

Status PickleMachine::step_memo(std::uint8_t opcode) {
  std::uint64_t index = memoized_;
  if (opcode == kPut || opcode == kGet) {
    KVFS_ASSIGN(const std::string_view text, take_line());
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), index);
    if (problem != std::errc{} || end != text.data() + text.size()) {
      return corrupt("has the memo number " + in_quotes(text));
    }
  } else if (opcode != kMemoize) {
    KVFS_ASSIGN(index, take_number(opcode == kBinPut || opcode == kBinGet ? 1 : 4));
  }
  const bool is_get = opcode == kGet || opcode == kBinGet || opcode == kLongBinGet;
  return is_get ? recall(index) : memoize(index);
}

Status PickleMachine::step_container(std::uint8_t opcode) {
  switch (opcode) {
    case kMark:
      marks_.push_back(stack_.size());
      return {};
    case kPop:
      if (!marks_.empty() && marks_.back() == stack_.size()) {
        marks_.pop_back();  // as Python has it
        return {};
      }
      KVFS_TRY(pop());
      return {};
    case kPopMark:
      KVFS_TRY(pop_to_mark());
      return {};
    case kDup: {
      KVFS_ASSIGN(const NodeId id, top());
      return push_id(id);
    }
    case kEmptyTuple:
      return push_tuple(0);
    case kTuple1:
      return push_tuple(1);
    case kTuple2:
      return push_tuple(2);
    case kTuple3:
      return push_tuple(3);
    case kEmptyList:
      return push({.kind = Kind::kList});
    case kEmptyDict:
      return push({.kind = Kind::kDict});
    case kEmptySet:
      return push({.kind = Kind::kSet});
    case kTuple:
    case kList:
    case kFrozenSet:
    case kDict: {
      KVFS_ASSIGN(auto items, pop_to_mark());
      return push_sequence(opcode == kTuple       ? Kind::kTuple
                           : opcode == kList      ? Kind::kList
                           : opcode == kFrozenSet ? Kind::kSet
                                                  : Kind::kDict,
                           std::move(items));
    }
    case kAppend: {
      KVFS_ASSIGN(const NodeId value, pop());
      return append({value}, false);
    }
    case kAppends:
    case kAddItems: {
      KVFS_ASSIGN(auto values, pop_to_mark());
      return append(std::move(values), opcode == kAddItems);
    }
    case kSetItem: {
      KVFS_ASSIGN(const NodeId value, pop());
      KVFS_ASSIGN(const NodeId key, pop());
      return set_items({key, value});
    }
    case kSetItems: {
      KVFS_ASSIGN(auto pairs, pop_to_mark());
      return set_items(std::move(pairs));
    }
    case kExt1:
    case kExt2:
    case kExt4:
      return refuse("calls what a registry of extensions names");
    case kNextBuffer:
    case kReadOnlyBuffer:
      return refuse("wants a buffer from outside the file");
    default:
      return corrupt("is none of pickle's");
  }
}

Result<ByteSpan> PickleMachine::take(std::uint64_t size) {
  if (size > bytes_.size() - at_) {
    return corrupt("names " + std::to_string(size) + " bytes, " +
                   std::to_string(bytes_.size() - at_) + " are left");
  }
  const ByteSpan out = bytes_.subspan(at_, size);
  at_ += size;
  return out;
}

Result<std::uint64_t> PickleMachine::take_number(std::size_t width) {
  KVFS_ASSIGN(const ByteSpan bytes, take(width));
  std::uint64_t value = 0;
  std::copy(bytes.begin(), bytes.end(), reinterpret_cast<std::uint8_t*>(&value));
  return value;
}

Result<ByteSpan> PickleMachine::take_counted(std::size_t width) {
  KVFS_ASSIGN(const std::uint64_t size, take_number(width));
  return take(size);
}

Result<std::string_view> PickleMachine::take_line() {
  const std::string_view rest = as_text(bytes_.subspan(at_));
  const std::size_t end = rest.find('\n');
  if (end == std::string_view::npos) return corrupt("has a line without an end");
  at_ += end + 1;
  return rest.substr(0, end);
}

}  // namespace kvfs::container

#include "codec/container/pickle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/codec/container/largest_allocation.h"

namespace kvfs::container {
namespace {

using testing::HasSubstr;
using Kind = PickleNode::Kind;
using namespace std::string_literals;

Result<PickleTree> read(std::string_view text) { return read_pickle(as_bytes(text)); }

TEST(Pickle, ValuesOfEveryKindAreRead) {
  const std::string file =
      "\x80\x05\x95\x02\0\0\0\0\0\0\0"  // frame
      "(NI01\nI-7\nK\xffM\xff\xffJ\xff\xff\xff\xffL12345678901L\n\x8a\x02\0\x80"
      "F1.5\n"
      "G\x3f\xf8\0\0\0\0\0\0S'old'\nVe\\u00e9\nX\x02\0\0\0hi\x8c\x01zC\x02\xff\0)\x88\x89t."s;
  const auto tree = read(file);
  ASSERT_TRUE(tree) << tree.error().message();
  EXPECT_EQ(tree->size, file.size());
  const std::vector<NodeId>& items = tree->top().items;
  ASSERT_EQ(items.size(), 18U);
  EXPECT_EQ((*tree)[items[0]].kind, Kind::kNone);
  EXPECT_EQ((*tree)[items[1]].kind, Kind::kBool);
  const std::int64_t whole[] = {-7, 255, 65535, -1, 12345678901, -32768};
  for (std::size_t i = 0; i < std::size(whole); ++i) {
    EXPECT_EQ((*tree)[items[2 + i]].integer, whole[i]);
  }
  EXPECT_EQ((*tree)[items[8]].number, 1.5);
  EXPECT_EQ((*tree)[items[9]].number, 1.5);
  const std::string texts[] = {"old", "e\xc3\xa9", "hi", "z"};
  for (std::size_t i = 0; i < std::size(texts); ++i) {
    EXPECT_TRUE(tree->is_text(items[10 + i], texts[i])) << texts[i];
  }
  EXPECT_EQ(as_text((*tree)[items[14]].bytes), "\xff\0"s);
  EXPECT_EQ((*tree)[items[15]].kind, Kind::kTuple);
}

TEST(Pickle, OfEqualKeysTheLastOneCounts) {
  const std::string file = "}(X\x01\0\0\0aK\x01X\x01\0\0\0aK\x02u."s;
  const auto tree = read(file);
  ASSERT_TRUE(tree) << tree.error().message();
  EXPECT_EQ((*tree)[tree->find(tree->root, "a")].integer, 2);
  EXPECT_EQ(tree->find(tree->root, "b"), kNoNode);
}

TEST(Pickle, ACallIsKeptAsItsNameAndArgumentsAndStateIsLastInIt) {
  const std::string file = "ctransformers.cache_utils\nDynamicCache\n)\x81}X\x01\0\0\0aNsb."s;
  const auto tree = read(file);
  ASSERT_TRUE(tree) << tree.error().message();
  ASSERT_TRUE(tree->is_object(tree->root, GlobalRole::kCache));
  EXPECT_NE(tree->find(tree->top().state, "a"), kNoNode);
}

TEST(Pickle, AListMayHoldItself) {
  const auto tree = read("]q\0h\0a."s);
  ASSERT_TRUE(tree) << tree.error().message();
  EXPECT_EQ(tree->top().items, std::vector<NodeId>{tree->root});
}

struct Hostile {
  std::string name;
  ErrorCode code;
  std::string file;
  std::string why;
};
void PrintTo(const Hostile& hostile, std::ostream* out) { *out << hostile.name; }

class HostilePickle : public testing::TestWithParam<Hostile> {};

TEST_P(HostilePickle, IsRefusedByNameOfTheOpcode) {
  reset_largest_allocation();
  const auto tree = read(GetParam().file);
  EXPECT_LT(largest_allocation(), 64U << 10);
  ASSERT_FALSE(tree);
  EXPECT_EQ(tree.error().code, GetParam().code) << tree.error().message();
  EXPECT_THAT(tree.error().why, HasSubstr(GetParam().why));
  EXPECT_FALSE(tree.error().way_out.empty());
}

constexpr auto kInvalid = ErrorCode::kInvalid;
constexpr auto kCorrupt = ErrorCode::kCorrupt;
const std::string kFourGigabytes = "\xff\xff\xff\xff"s;
const std::string kEightBytes = "\xff\xff\xff\xff\xff\xff\xff\x7f"s;

const Hostile kCalls[] = {
    {"System", kInvalid, "cos\nsystem\n(S'true'\ntR.", "REDUCE calls os.system"},
    {"SystemByPosix", kInvalid, "cposix\nsystem\n(S'true'\ntR.", "REDUCE calls posix.system"},
    {"SystemByStackGlobal", kInvalid, "\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R."s,
     "REDUCE calls os.system"},
    {"SystemByMemo", kInvalid, "\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93\x94h\x02)R."s,
     "REDUCE calls os.system"},
    {"SystemByInst", kInvalid, "(S'true'\nios\nsystem\n.", "INST calls os.system"},
    {"SystemByObj", kInvalid, "(cos\nsystem\nS'true'\no.", "OBJ calls os.system"},
    {"PopenByNewObj", kInvalid, "csubprocess\nPopen\n(S'true'\nt\x81.",
     "NEWOBJ makes an object of subprocess.Popen"},
    {"PopenByNewObjEx", kInvalid, "csubprocess\nPopen\n)}\x92.",
     "NEWOBJ_EX calls subprocess.Popen"},
    {"NamedOnly", kInvalid, "cos\nsystem\n.", "GLOBAL names os.system"},
    {"NamedAndDropped", kInvalid, "cos\nsystem\n0N.", "GLOBAL names os.system"},
    {"Eval", kInvalid, "c__builtin__\neval\n(S'1'\ntR.", "REDUCE calls __builtin__.eval"},
    {"Getattr", kInvalid, "cbuiltins\ngetattr\n)R.", "REDUCE calls builtins.getattr"},
    {"DottedName", kInvalid, "ctorch\nos.system\n(S'true'\ntR.", "REDUCE calls torch.os.system"},
    {"TorchLoad", kInvalid, "ctorch\nload\n)R.", "REDUCE calls torch.load"},
    {"ReconstructorOfPopen", kInvalid, "ccopyreg\n_reconstructor\n(csubprocess\nPopen\ntR.",
     "makes an object of subprocess.Popen"},
    {"AClassIsCalled", kInvalid, "ctransformers.cache_utils\nDynamicCache\n)R.",
     "REDUCE calls transformers.cache_utils.DynamicCache"},
    {"ATextIsCalled", kInvalid, "S'os.system'\n)R.", "REDUCE calls a str"},
    {"EncodeOtherwise", kInvalid, "c_codecs\nencode\n(S'x'\nS'rot13'\ntR.", "_codecs.encode"},
    {"BuildOfAList", kInvalid, "]}b.", "BUILD sets the state of a list"},
    {"BuildOfAName", kInvalid, "cos\nsystem\n}b.", "BUILD sets the state of os.system"},
    {"BuildTwice", kInvalid, "ctransformers.cache_utils\nDynamicCache\n)\x81}b}b.", "BUILD"},
    {"Extension", kInvalid, "\x82\x01.", "EXT1 calls"},
    {"Extension4", kInvalid, "\x84\x01\0\0\0."s, "EXT4 calls"},
    {"PersistentText", kInvalid, "Pfile:///etc/passwd\n.", "PERSID names"},
    {"OutsideBuffer", kInvalid, "\x97.", "NEXT_BUFFER wants"},
    {"ReadOnlyBuffer", kInvalid, "N\x98.", "READONLY_BUFFER wants"},
    {"NewProtocol", kInvalid, "\x80\x06N.", "PROTO asks for protocol 6"},
    {"EscapesInAName", kInvalid, "cos\x1b[2J\nsystem\n)R.", "REDUCE calls os?[2J.system"},
};
const Hostile kDamage[] = {
    {"Empty", kCorrupt, "", "without the opcode STOP"},
    {"NoStop", kCorrupt, "N", "without the opcode STOP"},
    {"OnlyStop", kCorrupt, ".", "STOP finds no value"},
    {"UnknownOpcode", kCorrupt, "\x01.", "0x01 is none of pickle's"},
    {"LengthLies", kCorrupt, "X" + kFourGigabytes + "a.", "BINUNICODE names 4294967295 bytes"},
    {"Length8Lies", kCorrupt, "\x8e" + kEightBytes + ".", "BINBYTES8 names"},
    {"ByteArrayLies", kCorrupt, "\x96" + kEightBytes + ".", "BYTEARRAY8 names"},
    {"FrameLies", kCorrupt, "\x95" + kEightBytes + "N.", "FRAME names more bytes"},
    {"LongLies", kCorrupt, "\x8b" + kFourGigabytes + ".", "LONG4 names"},
    {"CutNumber", kCorrupt, "J\0\0"s, "BININT names 4 bytes"},
    {"LineWithoutEnd", kCorrupt, "I12", "INT has a line without an end"},
    {"NoNumber", kCorrupt, "Isix\n.", "INT has the number 'six'"},
    {"NumberBeyond64Bits", kCorrupt, "I99999999999999999999\n.", "INT has the number"},
    {"MemoNeverSet", kCorrupt, "h\x07.", "BINGET recalls memo 7"},
    {"MemoIsHuge", kCorrupt, "Nr" + kFourGigabytes + ".", "LONG_BINPUT has the memo number"},
    {"MemoOfNothing", kCorrupt, "q\0."s, "BINPUT finds no value"},
    {"TupleWithoutMark", kCorrupt, "Nt.", "TUPLE finds no MARK"},
    {"Tuple3OfTwo", kCorrupt, "NN\x87.", "TUPLE3 finds no value"},
    {"PopBelowTheMark", kCorrupt, "N(\x85.", "TUPLE1 finds no value"},
    {"OddDict", kCorrupt, "(Nd.", "DICT finds a key without a value"},
    {"OddItems", kCorrupt, "}(Nu.", "SETITEMS finds a key without a value"},
    {"AppendToATuple", kInvalid, ")Na.", "APPEND adds to a tuple"},
    {"AddToAList", kInvalid, "](N\x90.", "ADDITEMS adds to a list"},
    {"ItemsOfAList", kInvalid, "]NNs.", "SETITEM sets items of a list"},
    {"ArgumentsAreNoTuple", kCorrupt, "ctorch\nSize\n]R.", "REDUCE finds no tuple"},
    {"NameIsNoText", kCorrupt, "NN\x93.", "STACK_GLOBAL finds no two texts"},
    {"BrokenEscape", kCorrupt, "V\\u12\n.", "UNICODE has a broken escape"},
    {"NumberOf300Bits", kInvalid, "\x8a\x30" + std::string(0x30, '\x7f') + ".", "LONG1"},
};
std::string name_of_case(const testing::TestParamInfo<Hostile>& info) { return info.param.name; }
INSTANTIATE_TEST_SUITE_P(Calls, HostilePickle, testing::ValuesIn(kCalls), name_of_case);
INSTANTIATE_TEST_SUITE_P(Damage, HostilePickle, testing::ValuesIn(kDamage), name_of_case);

TEST(Pickle, AMillionNestedListsCostNoStack) {
  std::string file(500'000, ']');
  file += std::string(499'999, 'a') + ".";
  const auto tree = read(file);
  ASSERT_TRUE(tree) << tree.error().message();
  EXPECT_EQ(tree->nodes.size(), 500'000U);
}

TEST(Pickle, MoreValuesThanTheLimitAreRefused) {
  const std::string file = std::string(PickleTree::kMostNodes + 1, 'N') + ".";
  const auto tree = read(file);
  ASSERT_FALSE(tree);
  EXPECT_EQ(tree.error().code, ErrorCode::kTooLarge);
}

TEST(Pickle, ATextDecodedAgainAndAgainIsRefused) {
  std::string file =
      "c_codecs\nencode\nq\0(X\x00\x10\0\0"s + std::string(4096, 'x') + "X\x06\0\0\0latin1tq\x01"s;
  for (int i = 0; i < 1000; ++i) file += "h\0h\x01R"s;
  const auto tree = read(file + ".");
  ASSERT_FALSE(tree);
  EXPECT_THAT(tree.error().why, HasSubstr("decodes more bytes"));
}

}  // namespace
}  // namespace kvfs::container

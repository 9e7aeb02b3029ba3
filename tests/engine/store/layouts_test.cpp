// The layouts on disk: bytes that must never change, and damage that must never pass.
#include "engine/store/layouts.h"

#include <gtest/gtest.h>

namespace kvfs::store {
namespace {

std::string hex(const Bytes& bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (std::uint8_t byte : bytes) {
    out += kDigits[byte >> 4];
    out += kDigits[byte & 15];
  }
  return out;
}

template <class D>
D filled(std::uint8_t byte) {
  D digest;
  digest.bytes.fill(byte);
  return digest;
}

BlockRecord a_block() {
  BlockRecord block{.index = 1,
                    .tokens = {{5, 256, TokenPath::kRead}, {-1, 258, TokenPath::kGenerated}},
                    .text = "hi",
                    .previous_key = filled<BlockKey>(0xa1),
                    .key = filled<BlockKey>(0xa2),
                    .digest = filled<ContentDigest>(0xa3)};
  block.segments.push_back({.layer = 3,
                            .head_begin = 1,
                            .head_count = 2,
                            .positions = {256, 257},
                            .key_shape = {DType::kBF16, 1, 2, 4},
                            .value_shape = {DType::kBF16, 2, 2, 8},
                            .key_chunks = {filled<ChunkId>(0xb1), filled<ChunkId>(0xb2)},
                            .value_chunks = {filled<ChunkId>(0xb3)},
                            .digest = filled<ContentDigest>(0xb4)});
  return block;
}

VersionRecord a_version() {
  return {.references = 2,
          .model = "m",
          .fingerprint = filled<ModelFingerprint>(0xc1),
          .kernel_class = "k",
          .kv_dtype = DType::kF32,
          .codec = chunk::CodecId::kRaw,
          .origin = Origin::kPruned,
          .origin_detail = "{}",
          .n_tokens = 3,
          .next_pos = 9,
          .layers = {{2, 4, 8}, {1, 16, 0, LayerKind::kConvolution, 3}},
          .extents = {{.own_positions = true, .lengths = {3, 2}}, {.lengths = {3}}},
          .blocks = {{17}, {18}},
          .text_bytes = 6,
          .kv_bytes = 240,
          .root = filled<ContentDigest>(0xc2)};
}

Bytes bytes_of(const std::string& hex) {
  Bytes bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2)
    bytes.push_back(static_cast<std::uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return bytes;
}

StateRecord a_state() {
  return {.parent = {1},
          .name = "s",
          .uid = 2,
          .gid = 3,
          .mode = 0750,
          .created_ns = 4,
          .changed_ns = 5,
          .advanced_ns = -6,
          .version = {7},
          .params = {{"seed", "8"}},
          .snapshot = true,
          .pinned = true};
}

JobRecord a_job() {
  return {.state = {1},
          .name = "q",
          .kind = JobKind::kAsk,
          .status = JobStatus::kFailed,
          .prompt = "p",
          .params = {{"a", "b"}},
          .seed = 2,
          .base = {3},
          .submitted_ns = 4,
          .finished_ns = 5,
          .prompt_tokens = 6,
          .generated_tokens = 7,
          .known_tokens = 8,
          .prefilled_tokens = 11,
          .restored_tokens = 9,
          .recomputed_tokens = 12,
          .milliseconds = 10,
          .times = {13, 14, 15, 16, 17, 18, 19},
          .finish = "stop",
          .error = "e"};
}

FileRecord a_file() {
  return {.id = {1}, .uid = 2, .gid = 3, .mode = 0644, .changed_ns = 4, .content = "xyz"};
}

ChunkHeader a_chunk_header() {
  return {.codec = chunk::CodecId::kZh,
          .shape = {DType::kBF16, 3, 256, 64},
          .encoded_size = 0,
          .checksum = 0x1122334455667788};
}

TEST(Layouts, GoldenBytesOfAChunkHeader) {
  EXPECT_EQ(hex(encode(a_chunk_header())), "010103030000010000400000000000008877665544332211");
}
TEST(Layouts, GoldenBytesOfABlock) {
  EXPECT_EQ(hex(encode(a_block())),
            "010100000002000000020000006000000000000000a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3020000"
            "0002000000a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2a2020000"
            "0000000100000201000005000000ffffffff00010200000068690100000003000100020000020000"
            "0001000100000301000200000004000200b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b2b2b2b2b2b2b2"
            "b2b2b2b2b2b2b2b2b20302000200000008000100b3b3b3b3b3b3b3b3b3b3b3b3b3b3b3b3b4b4b4b4"
            "b4b4b4b4b4b4b4b4b4b4b4b4");
}
TEST(Layouts, GoldenBytesOfAVersion) {
  EXPECT_EQ(hex(encode(a_version())),
            "0202000000010000006dc1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1010000006b010003020000007b7d"
            "03000000000000000900000002000200040008000000010100100000000403000103000000020000"
            "00000300000002000000110000000000000012000000000000000600000000000000f00000000000"
            "0000c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2");
}
TEST(Layouts, AVersionOfTheFirstLayoutHasFullLayers) {
  const auto version = decode_version(
      bytes_of("0102000000010000006dc1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1010000006b010003020000007b7d"
               "03000000000000000900000001000200040008000103000000020000000200000011000000000000"
               "0012000000000000000600000000000000f000000000000000c2c2c2c2c2c2c2c2c2c2c2c2c2c2c2"
               "c2"),
      "it");
  ASSERT_TRUE(version) << version.error().message();
  EXPECT_EQ(version->layers, (std::vector<LayerShape>{{2, 4, 8}}));
  EXPECT_EQ(version->kv_bytes, 240U);
}
TEST(Layouts, GoldenBytesOfAState) {
  EXPECT_EQ(hex(encode(a_state())),
            "02010000000000000001000000730200000003000000e80100000400000000000000050000000000"
            "0000faffffffffffffff0700000000000000010000000400000073656564010000003803");
}
TEST(Layouts, AStateOfTheFirstLayoutIsNeitherPinnedNorASnapshot) {
  Bytes bytes = encode(a_state());
  bytes.front() = 1;
  bytes.pop_back();
  const auto state = decode_state(bytes, "it");
  ASSERT_TRUE(state) << state.error().message();
  EXPECT_FALSE(state->pinned || state->snapshot);
  EXPECT_EQ(state->params, a_state().params);
}
FileNode a_node() {
  return {.kind = FileKind::kSymlink,
          .linked = false,
          .uid = 2,
          .gid = 3,
          .mode = 0640,
          .size = 4,
          .pieces = 5,
          .modified_ns = 6,
          .changed_ns = 7,
          .target = "t",
          .source = VersionId{8},
          .source_part = layer_part(1),
          .source_bytes = 10};
}
TEST(Layouts, GoldenBytesOfAUsersFile) {
  EXPECT_EQ(hex(encode(a_node())),
            "0101000200000003000000a001000004000000000000000500000000000000060000000000000007"
            "0000000000000001000000740800000000000000"
            "0900"
            "0a00000000000000");
}
TEST(Layouts, GoldenBytesOfAJob) {
  EXPECT_EQ(hex(encode(a_job())),
            "02010000000000000001000000710203010000007001000000010000006101000000620200000000"
            "00000003000000000000000400000000000000050000000000000006000000070000000800000009"
            "0000000a0000000b0000000c0000000d0000000e0000000f00000010000000110000001200000013"
            "0000000400000073746f700100000065");
}
TEST(Layouts, AJobOfTheFirstLayoutHasReadWhatWasNotKnown) {
  const auto job = decode_job(
      bytes_of("01010000000000000001000000710203010000007001000000010000006101000000620200000000"
               "00000003000000000000000400000000000000050000000000000006000000070000000200000009"
               "0000000a0000000400000073746f700100000065"),
      "it");
  ASSERT_TRUE(job) << job.error().message();
  EXPECT_EQ(job->prefilled_tokens, 4U);
  EXPECT_EQ(job->restored_tokens, 9U);
  EXPECT_EQ(job->recomputed_tokens, 0U);
  EXPECT_EQ(job->milliseconds, 10U);
  EXPECT_EQ(job->times, JobTimes{});
  EXPECT_EQ(job->finish, "stop");
}
TEST(Layouts, GoldenBytesOfAFile) {
  EXPECT_EQ(hex(encode(a_file())),
            "0101000000000000000200000003000000a401000004000000000000000300000078797a");
}

// Decoding and encoding again gives the same bytes; every shorter prefix and one byte more is
// refused; the next layout is refused as newer.
template <class Decode>
void expect_strict(Bytes bytes, Decode decode) {
  const auto whole = decode(bytes);
  ASSERT_TRUE(whole) << whole.error().message();
  EXPECT_EQ(hex(encode(*whole)), hex(bytes));
  for (std::size_t n = 0; n < bytes.size(); ++n) {
    const auto part = decode(Bytes(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(n)));
    ASSERT_FALSE(part) << n;
    EXPECT_EQ(part.error().code, ErrorCode::kCorrupt);
  }
  Bytes longer = bytes;
  longer.push_back(0);
  EXPECT_FALSE(decode(longer));
  ++bytes[0];
  const auto newer = decode(bytes);
  ASSERT_FALSE(newer);
  EXPECT_EQ(newer.error().code, ErrorCode::kUnsupported);
  EXPECT_FALSE(newer.error().way_out.empty());
}

TEST(Layouts, EveryRecordComesBackAndNoCutOneDoes) {
  expect_strict(encode(a_block()), [](const Bytes& b) { return decode_block(b, "it"); });
  expect_strict(encode(a_version()), [](const Bytes& b) { return decode_version(b, "it"); });
  expect_strict(encode(a_state()), [](const Bytes& b) { return decode_state(b, "it"); });
  expect_strict(encode(a_job()), [](const Bytes& b) { return decode_job(b, "it"); });
  expect_strict(encode(a_file()), [](const Bytes& b) { return decode_file(b, "it"); });
  expect_strict(encode(a_node()), [](const Bytes& b) { return decode_node(b, "it"); });
  expect_strict(encode(a_chunk_header()),
                [](const Bytes& b) { return decode_chunk_header(b, "it"); });
}

TEST(Layouts, FlippedBytesNeverCrashTheReader) {
  for (const Bytes& record : {encode(a_block()), encode(a_version()), encode(a_job())}) {
    for (std::size_t i = 1; i < record.size(); ++i) {
      for (int value : {0x00, 0x7f, 0x80, 0xff}) {
        Bytes damaged = record;
        damaged[i] = static_cast<std::uint8_t>(value);
        // Whether it parses depends on the byte; that it stays in bounds is asan's to see.
        (void)decode_block(damaged, "it");
        (void)decode_version(damaged, "it");
        (void)decode_job(damaged, "it");
      }
    }
  }
}

TEST(Layouts, ABlocksSummaryIsThatOfItsSegments) {
  const BlockSummary summary = *decode_summary(encode(a_block()), "it");
  EXPECT_EQ(summary.index, 1);
  EXPECT_EQ(summary.token_count, 2u);
  EXPECT_EQ(summary.text_bytes, 2u);
  EXPECT_EQ(summary.kv_bytes, 2u * (1 * 2 * 4 * 2) + 2 * 2 * 8 * 2);
  EXPECT_EQ(summary.heads, 2u);
  EXPECT_EQ(summary.length, 2u);
  EXPECT_EQ(summary.digest, filled<ContentDigest>(0xa3));

  BlockRecord ragged = a_block();
  ragged.segments.push_back(ragged.segments.front());
  ragged.segments.back().head_begin = 3;
  ragged.segments.back().positions = {256, 300};
  EXPECT_EQ(decode_summary(encode(ragged), "it")->length, std::nullopt);
}

}  // namespace
}  // namespace kvfs::store

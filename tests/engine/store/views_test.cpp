// Views: what each file of a state holds, at any offset, whatever the heads' lengths.
#include "engine/store/views.h"

#include <boost/json.hpp>
#include <thread>

#include "codec/container/npy.h"
#include "codec/container/safetensors.h"
#include "tests/engine/store/fixture.h"

namespace kvfs::store {
namespace {

// The whole file, read in pieces of the given size.
Bytes read_all(FileView& view, std::size_t step = 1 << 16) {
  Bytes out;
  for (;;) {
    Bytes piece(step);
    const auto n = view.read(out.size(), piece);
    EXPECT_TRUE(n) << n.error().message();
    if (!n || *n == 0) break;
    out.insert(out.end(), piece.begin(), piece.begin() + static_cast<std::ptrdiff_t>(*n));
  }
  EXPECT_EQ(out.size(), view.size());
  return out;
}

class ViewsTest : public StoreTest {
 protected:
  Bytes layer_file(const VersionRecord& version, std::uint16_t layer, std::size_t step = 1 << 16) {
    auto view = layer_view(*store, version, layer);
    EXPECT_TRUE(view) << view.error().message();
    return read_all(**view, step);
  }
  struct Tensor {
    container::TensorEntry entry;
    ByteSpan bytes;
  };
  // file must outlive what is returned.
  std::map<std::string, Tensor> tensors(const Bytes& file) {
    const auto header = container::parse_safetensors_header(file, file.size());
    EXPECT_TRUE(header) << header.error().message();
    std::map<std::string, Tensor> out;
    for (const container::TensorEntry& entry : header->tensors) {
      const ByteSpan data = ByteSpan(file).subspan(header->data_offset);
      out[entry.name] = {entry, data.subspan(entry.begin, entry.end - entry.begin)};
    }
    return out;
  }
  static std::vector<std::int32_t> integers(ByteSpan bytes) {
    std::vector<std::int32_t> out(bytes.size() / 4);
    std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
  }
  // One head's rows of the blocks' pieces, one block after the other.
  static Bytes rows(const std::vector<NewBlock>& blocks, std::uint16_t layer, std::uint16_t head,
                    Bytes KvPiece::*tensor) {
    Bytes out;
    for (const NewBlock& block : blocks) {
      for (const KvPiece& piece : block.pieces) {
        if (piece.layer != layer || head < piece.head_begin ||
            head >= piece.head_begin + piece.head_count) {
          continue;
        }
        const std::size_t size = (piece.*tensor).size() / piece.head_count;
        const auto from =
            (piece.*tensor).begin() + static_cast<std::ptrdiff_t>(size * (head - piece.head_begin));
        out.insert(out.end(), from, from + static_cast<std::ptrdiff_t>(size));
      }
    }
    return out;
  }
  static bool same(ByteSpan a, ByteSpan b) { return as_text(a) == as_text(b); }

  VersionRecord version_of_blocks(const std::vector<NewBlock>& blocks) {
    std::vector<BlockId> ids;
    for (const NewBlock& block : blocks) ids.push_back(add(block));
    return version_of(add_state("s" + std::to_string(count_++), ids));
  }

 private:
  int count_ = 0;
};

TEST_F(ViewsTest, ALayerIsASafetensorsFileOfItsKeysValuesAndPositions) {
  model.layers = {{3, 16, 24}, {2, 8, 8}};
  const std::vector<NewBlock> blocks = {model.block(1, 0), model.block(1, 1),
                                        model.block(1, 2, 77)};
  const VersionRecord version = version_of_blocks(blocks);
  for (std::uint16_t layer = 0; layer < 2; ++layer) {
    const LayerShape& shape = model.layers[layer];
    const Bytes file = layer_file(version, layer);
    auto parts = tensors(file);
    using Shape = std::vector<std::uint64_t>;
    EXPECT_EQ(parts["key"].entry.shape, (Shape{1, shape.kv_heads, 589, shape.key_width}));
    EXPECT_EQ(parts["value"].entry.shape, (Shape{1, shape.kv_heads, 589, shape.value_width}));
    EXPECT_EQ(parts["positions"].entry.shape, (Shape{589}));
    EXPECT_EQ(parts["key"].entry.dtype, DType::kBF16);
    Bytes key, value;
    for (std::uint16_t head = 0; head < shape.kv_heads; ++head) {
      for (std::uint8_t byte : rows(blocks, layer, head, &KvPiece::key)) key.push_back(byte);
      for (std::uint8_t byte : rows(blocks, layer, head, &KvPiece::value)) value.push_back(byte);
    }
    EXPECT_TRUE(same(parts["key"].bytes, key));
    EXPECT_TRUE(same(parts["value"].bytes, value));
    const auto positions = integers(parts["positions"].bytes);
    for (int i = 0; i < 589; ++i) ASSERT_EQ(positions[static_cast<std::size_t>(i)], i);
  }
  EXPECT_EQ(layer_view(*store, version, 2).error().code, ErrorCode::kNotFound);
}

TEST_F(ViewsTest, AnyOffsetAndAnyLengthGiveTheSameBytes) {
  const VersionRecord version = version_of_blocks({model.block(1, 0), model.block(1, 1, 100)});
  const Bytes whole = layer_file(version, 1);
  EXPECT_EQ(layer_file(version, 1, 977), whole);
  auto view = *layer_view(*store, version, 1);
  std::mt19937 random(1);
  for (int i = 0; i < 300; ++i) {
    const std::size_t offset = random() % (whole.size() + 100);
    Bytes out(random() % 3000);
    const std::size_t n = *view->read(offset, out);
    ASSERT_EQ(n, offset < whole.size() ? std::min(out.size(), whole.size() - offset) : 0);
    ASSERT_TRUE(
        same(ByteSpan(out).first(n), n == 0 ? ByteSpan() : ByteSpan(whole).subspan(offset, n)));
  }
}

TEST_F(ViewsTest, ManyThreadsMayReadOneView) {
  const VersionRecord version = version_of_blocks({model.block(1, 0), model.block(1, 1)});
  auto view = *layer_view(*store, version, 0);
  const Bytes whole = layer_file(version, 0);
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] { EXPECT_EQ(read_all(*view, 500 + 331u * i), whole); });
  }
}

TEST_F(ViewsTest, HeadsOfUnequalLengthsAreLaidOutRagged) {
  NewBlock block = model.block(1, 0, 40);
  KvPiece& piece = block.pieces[1];  // layer 1: head 0 keeps 40 positions, head 1 only three
  const KvPiece full = piece;
  const std::size_t key_row = 32, head_bytes = 40 * key_row;
  piece.head_count = 1;
  piece.key.resize(head_bytes);
  piece.value.resize(head_bytes);
  KvPiece pruned{.layer = 1, .head_begin = 1, .head_count = 1, .positions = {0, 5, 39}};
  for (Position kept : pruned.positions) {
    const auto at =
        static_cast<std::ptrdiff_t>(head_bytes + static_cast<std::size_t>(kept) * key_row);
    pruned.key.insert(pruned.key.end(), full.key.begin() + at, full.key.begin() + at + 32);
    pruned.value.insert(pruned.value.end(), full.value.begin() + at, full.value.begin() + at + 32);
  }
  block.pieces.insert(block.pieces.begin() + 2, pruned);
  const VersionRecord version = version_of_blocks({block});
  EXPECT_EQ(version.extents[1], (LayerExtent{.own_positions = true, .lengths = {40, 3}}));
  EXPECT_EQ(version.extents[0], (LayerExtent{.lengths = {40, 40}}));

  const Bytes file = layer_file(version, 1, 100);
  auto parts = tensors(file);
  using Shape = std::vector<std::uint64_t>;
  EXPECT_EQ(parts["key"].entry.shape, (Shape{43, 16}));
  EXPECT_EQ(parts["positions"].entry.shape, (Shape{43}));
  EXPECT_EQ(integers(parts["head_offsets"].bytes), (std::vector<std::int32_t>{0, 40, 43}));
  Bytes key = piece.key;
  key.insert(key.end(), pruned.key.begin(), pruned.key.end());
  EXPECT_TRUE(same(parts["key"].bytes, key));
  const auto positions = integers(parts["positions"].bytes);
  EXPECT_EQ(positions[39], 39);
  EXPECT_EQ(positions[41], 5);
}

TEST_F(ViewsTest, HeadsOfEqualLengthButOtherPositionsHaveARowOfPositionsEach) {
  NewBlock block = model.block(1, 0, 4);
  block.pieces.clear();
  std::mt19937 random(1);
  for (std::uint16_t layer = 0; layer < 3; ++layer) {
    for (std::uint16_t head = 0; head < 2; ++head) {
      const Position last = head == 0 ? 2 : 3;
      block.pieces.push_back(
          {layer, head, 1, {0, last}, model.tensor(2 * 16, random), model.tensor(2 * 16, random)});
    }
  }
  const VersionRecord version = version_of_blocks({block});
  const Bytes file = layer_file(version, 0);
  auto parts = tensors(file);
  EXPECT_EQ(parts["key"].entry.shape, (std::vector<std::uint64_t>{1, 2, 2, 16}));
  EXPECT_EQ(parts["positions"].entry.shape, (std::vector<std::uint64_t>{2, 2}));
  EXPECT_EQ(integers(parts["positions"].bytes), (std::vector<std::int32_t>{0, 2, 0, 3}));
}

TEST_F(ViewsTest, ALayerThatWasPrunedAwayInABlockIsMerelyShorter) {
  NewBlock first = model.block(1, 0), second = model.block(1, 1);
  first.pieces[1].positions.clear();
  first.pieces[1].key.clear();
  first.pieces[1].value.clear();
  const VersionRecord version = version_of_blocks({first, second});
  EXPECT_EQ(version.extents[0].lengths, (std::vector<std::uint32_t>{512, 512}));
  EXPECT_EQ(version.extents[1].lengths, (std::vector<std::uint32_t>{256, 256}));
  const Bytes file = layer_file(version, 1);
  EXPECT_EQ(integers(tensors(file)["positions"].bytes).front(), 256);
}

TEST_F(ViewsTest, AConvolutionsLayerHoldsItsInputsAtTheBlocksEnds) {
  model.layers = {{.kv_heads = 1, .key_width = 16, .kind = LayerKind::kConvolution, .kept = 3},
                  {2, 8, 8}};
  const std::vector<NewBlock> blocks = {model.block(1, 0), model.block(1, 1), model.block(1, 2, 2)};
  const VersionRecord version = version_of_blocks(blocks);
  EXPECT_EQ(version.extents[0], (LayerExtent{.lengths = {8}}));
  EXPECT_EQ(version.extents[1], (LayerExtent{.lengths = {514, 514}}));
  EXPECT_EQ(version.kv_bytes, 2u * (8 * 16 + 514 * 2 * 16));

  const Bytes file = layer_file(version, 0, 33);
  auto parts = tensors(file);
  EXPECT_EQ(parts.size(), 2u);
  EXPECT_EQ(parts["conv"].entry.shape, (std::vector<std::uint64_t>{8, 16}));
  EXPECT_TRUE(same(parts["conv"].bytes, rows(blocks, 0, 0, &KvPiece::key)));
  EXPECT_EQ(integers(parts["positions"].bytes),
            (std::vector<std::int32_t>{253, 254, 255, 509, 510, 511, 512, 513}));

  const std::string json(as_text(read_all(**state_json_view(*store, version))));
  EXPECT_NE(json.find(R"({"length":8,"kind":"convolution","kept":3,"channels":16})"),
            std::string::npos)
      << json;
  const auto block = store->block(version.blocks[2]);
  ASSERT_TRUE(block);
  const auto piece = store->read_segment(block->segments[0]);
  ASSERT_TRUE(piece) << piece.error().message();
  EXPECT_EQ(piece->kind, LayerKind::kConvolution);
  EXPECT_EQ(piece->positions, (std::vector<Position>{512, 513}));
  EXPECT_EQ(piece->key, blocks[2].pieces[0].key);
  EXPECT_TRUE(piece->value.empty());
  expect_sound();
}

TEST_F(ViewsTest, TokensAndTextAreThoseOfTheBlocks) {
  const std::vector<NewBlock> blocks = {model.block(1, 0), model.block(1, 1, 9)};
  const VersionRecord version = version_of_blocks(blocks);
  const Bytes npy = read_all(**tokens_view(*store, version), 333);
  const auto header = container::parse_npy_header(npy, npy.size());
  ASSERT_TRUE(header) << header.error().message();
  EXPECT_EQ(header->dtype, DType::kI32);
  EXPECT_EQ(header->shape, (std::vector<std::uint64_t>{265}));
  const auto ids = integers(ByteSpan(npy).subspan(header->data_offset));
  EXPECT_EQ(ids[0], blocks[0].tokens[0].token);
  EXPECT_EQ(ids[264], blocks[1].tokens[8].token);
  EXPECT_EQ(tokens_of(*store, version)->at(264), blocks[1].tokens[8]);
  const Bytes text = read_all(**text_view(*store, version), 100);
  EXPECT_EQ(as_text(text), blocks[0].text + blocks[1].text);
}

TEST_F(ViewsTest, StateJsonSaysWhatTheStateIsInAFixedOrder) {
  VersionRecord version = version_of_blocks({model.block(1, 0, 5)});
  version.origin = Origin::kPruned;
  version.origin_detail = R"({"method": "keep_last", "n": 512})";
  const Bytes bytes = read_all(**state_json_view(*store, version));
  const std::string expected =
      "{\n"
      "  \"format\": 1,\n"
      "  \"model\": \"test\",\n"
      "  \"fingerprint\": \"07070707070707070707070707070707\",\n"
      "  \"kernel_class\": \"cpu\",\n"
      "  \"n_tokens\": 5,\n"
      "  \"next_pos\": 256,\n"
      "  \"dtype\": \"BF16\",\n"
      "  \"codec\": \"zh\",\n"
      "  \"layers\": [\n"
      "    {\"length\":5,\"kv_heads\":2,\"key_width\":16,\"value_width\":16},\n"
      "    {\"length\":5,\"kv_heads\":2,\"key_width\":16,\"value_width\":16},\n"
      "    {\"length\":5,\"kv_heads\":2,\"key_width\":16,\"value_width\":16}\n"
      "  ],\n"
      "  \"origin\": {\"kind\":\"pruned\",\"method\":\"keep_last\",\"n\":512},\n"
      "  \"root\": \"" +
      version.root.hex() +
      "\"\n"
      "}\n";
  EXPECT_EQ(as_text(bytes), expected);
  EXPECT_TRUE(boost::json::parse(expected).is_object());
}

TEST_F(ViewsTest, FilesOfEqualContentAreEqualWhateverTheStateIsCalled) {
  const VersionRecord a = version_of(add_state("a", 1, 2));
  const VersionRecord b = version_of(add_state("b", 1, 2));
  EXPECT_EQ(read_all(**state_json_view(*store, a)), read_all(**state_json_view(*store, b)));
  EXPECT_EQ(layer_file(a, 2), layer_file(b, 2));
}

TEST_F(ViewsTest, AMissingBlockIsAnErrorOfTheRead) {
  VersionRecord version = version_of(add_state("a", 1, 1));
  version.blocks[0].value += 1000;
  auto view = *layer_view(*store, version, 0);
  Bytes out(view->size());
  EXPECT_FALSE(view->read(0, out));
}

}  // namespace
}  // namespace kvfs::store

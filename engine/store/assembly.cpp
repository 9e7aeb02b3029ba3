#include "engine/store/assembly.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <future>
#include <utility>

#include "codec/container/npy.h"
#include "engine/store/layer_reader.h"

namespace kvfs::store {
namespace {

constexpr std::uint64_t kMostFront = 65536;  // of an npy file's header
constexpr std::size_t kAtOnce = 4;           // blocks on their way to the store

tl::unexpected<Error> wrong_tokens(std::string why) {
  return fail(ErrorCode::kInvalid, "tokens.npy", std::move(why), "copy the file again");
}

Result<std::vector<TokenId>> read_tokens(FileView& file, std::uint64_t count) {
  Bytes front(std::min<std::uint64_t>(file.size(), kMostFront));
  KVFS_TRY(file.read(0, front));
  const auto header = container::parse_npy_header(front, file.size());
  if (!header) return wrong_tokens(header.error().message());
  if (header->dtype != DType::kI32 || header->shape != std::vector<std::uint64_t>{count}) {
    return wrong_tokens("it is not an int32 array of the " + std::to_string(count) +
                        " tokens that state.json says");
  }
  std::vector<TokenId> tokens(count);
  const MutableByteSpan out(reinterpret_cast<std::uint8_t*>(tokens.data()),
                            count * sizeof(TokenId));
  KVFS_ASSIGN(const std::size_t got, file.read(header->data_offset, out));
  if (got != out.size()) return wrong_tokens("it ends too soon");
  return tokens;
}

Status check(const StateDocument& document, const StateFiles& files) {
  const VersionRecord& version = document.version;
  if (files.layers.size() != version.layers.size()) {
    return fail(ErrorCode::kInvalid, "state.json",
                "it says " + std::to_string(version.layers.size()) + " layers, there are " +
                    std::to_string(files.layers.size()));
  }
  if (version.n_tokens < static_cast<std::uint64_t>(version.next_pos)) {
    return fail(ErrorCode::kUnsupported, "state.json",
                "next_pos is above n_tokens: where its tokens stand cannot be told from its files",
                "copy it within one mount");
  }
  return {};
}

// The text of a block: what its tokens spell, or all that there is with the first block.
std::string text_of(const StateFiles& files, std::span<const TokenId> tokens, std::size_t first,
                    std::size_t count) {
  if (!files.bytes_of) return first == 0 ? files.text : std::string();
  return spelled(tokens, first, count, files.bytes_of);
}

}  // namespace

std::string spelled(std::span<const TokenId> history, std::size_t first, std::size_t count,
                    const std::function<std::string_view(TokenId)>& bytes_of) {
  std::string text;
  for (std::size_t i = first; i < first + count; ++i) {
    if (history[i] >= 0) {
      text += bytes_of(history[i]);
    } else if (i == 0 || history[i - 1] >= 0) {
      text += "[tokens imported without ids: their text is not known]";
    }
  }
  return text;
}

Result<std::string> read_whole(FileView& view, std::uint64_t most, const std::string& name) {
  if (view.size() > most) {
    return fail(ErrorCode::kTooLarge, name, "it has " + std::to_string(view.size()) + " bytes");
  }
  std::string text(view.size(), '\0');
  KVFS_ASSIGN(const std::size_t got,
              view.read(0, {reinterpret_cast<std::uint8_t*>(text.data()), text.size()}));
  text.resize(got);
  return text;
}

Status check_given_up(const std::function<bool()>& given_up) {
  if (!given_up || !given_up()) return {};
  return fail(ErrorCode::kInterrupted, "import", "the daemon is stopping",
              "do it again when the daemon is back");
}

Result<Assembled> assemble(Store& store, const StateDocument& document, const StateFiles& files) {
  KVFS_TRY(check(document, files));
  Assembled out{.version = document.version};
  KVFS_ASSIGN(const auto tokens, read_tokens(*files.tokens, document.version.n_tokens));
  std::vector<LayerReader> layers;
  for (std::size_t i = 0; i < files.layers.size(); ++i) {
    KVFS_ASSIGN(LayerReader reader,
                LayerReader::open(*files.layers[i], static_cast<std::uint16_t>(i),
                                  document.version.layers[i], document.version.kv_dtype));
    if (reader.lengths() != document.version.extents[i].lengths) {
      return fail(ErrorCode::kInvalid, "kv/ layer " + std::to_string(i),
                  "it holds another number of positions than state.json says",
                  "copy both of the same state");
    }
    layers.push_back(std::move(reader));
  }
  // While some are encoded and written the next ones are read.
  std::deque<std::future<Result<BlockPin>>> going;
  const auto land = [&]() -> Status {
    KVFS_ASSIGN(BlockPin pin, going.front().get());
    going.pop_front();
    out.version.blocks.push_back(pin.id());
    out.pins.push_back(std::move(pin));
    return {};
  };
  // Where entries were moved, the first tokens have no position of their own: they stand at 0.
  const auto moved = tokens.size() - static_cast<std::size_t>(document.version.next_pos);
  for (std::size_t first = 0, count = 0; first < tokens.size(); first += count) {
    KVFS_TRY(check_given_up(files.given_up));
    count = std::min(kBlockTokens + (first == 0 ? moved : 0), tokens.size() - first);
    const std::span<const TokenId> ids = std::span(tokens).subspan(first, count);
    NewBlock block;
    for (std::size_t i = first; i < first + count; ++i) {
      const auto position = static_cast<Position>(i - std::min(i, moved));
      block.tokens.push_back({.token = ids[i - first], .position = position});
    }
    block.index = block.tokens.back().position / kBlockTokens;
    block.text = text_of(files, tokens, first, count);
    for (LayerReader& layer : layers) {
      KVFS_ASSIGN(auto pieces, layer.block(block.index));
      std::ranges::move(pieces, std::back_inserter(block.pieces));
    }
    going.push_back(std::async(std::launch::async, [&store, &document, block = std::move(block)] {
      return store.add_block(block, document.version.kv_dtype, document.version.codec);
    }));
    if (going.size() == kAtOnce) KVFS_TRY(land());
  }
  while (!going.empty()) KVFS_TRY(land());
  for (const LayerReader& layer : layers) KVFS_TRY(layer.expect_end());
  return out;
}

}  // namespace kvfs::store

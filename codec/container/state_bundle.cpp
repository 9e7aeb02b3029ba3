#include "codec/container/state_bundle.h"

#include <algorithm>
#include <utility>

#include "codec/container/pt_pickle.h"
#include "codec/container/zip_layout.h"

namespace kvfs::container {
namespace {

std::uint64_t width_of(const BundleLayer& layer, KvHalf half) {
  return half == KvHalf::kKey ? layer.key_width : layer.value_width;
}

std::uint64_t bytes_of(const BundleSpec& spec, std::size_t layer, KvHalf half) {
  const BundleLayer& facts = spec.layers[layer];
  return facts.heads * facts.tokens * width_of(facts, half) * size_of(spec.dtype);
}

Bytes as_i64(const std::vector<std::int32_t>& numbers) {
  ByteWriter out;
  for (const std::int32_t number : numbers) out.number(std::int64_t{number});
  return out.take();
}

Status check(const BundleSpec& spec) {
  const auto refuse = [](std::string why) {
    return fail(ErrorCode::kInvalid, "bundle", std::move(why), "export a state of whole heads");
  };
  if (spec.layers.empty()) return refuse("no layers");
  if (spec.dtype != DType::kF32 && spec.dtype != DType::kF16 && spec.dtype != DType::kBF16) {
    return refuse("keys and values of " + std::string(name_of(spec.dtype)));
  }
  if (spec.positions.size() != 1 && spec.positions.size() != spec.layers.size()) {
    return refuse("positions of " + std::to_string(spec.positions.size()) + " layers");
  }
  for (std::size_t i = 0; i < spec.layers.size(); ++i) {
    const auto& positions = spec.positions[spec.positions.size() == 1 ? 0 : i];
    if (positions.size() != spec.layers[i].tokens) {
      return refuse("layer " + std::to_string(i) + ": " + std::to_string(positions.size()) +
                    " positions, " + std::to_string(spec.layers[i].tokens) + " tokens");
    }
  }
  return {};
}

}  // namespace

Result<StateBundle> StateBundle::make(const BundleSpec& spec) {
  KVFS_TRY(check(spec));
  StateBundle out;
  out.lay_out(spec);
  return out;
}

void StateBundle::add_bytes(Bytes bytes) {
  Piece piece;
  piece.begin = size_;
  piece.size = bytes.size();
  piece.bytes = std::move(bytes);
  size_ += piece.size;
  if (piece.size != 0) pieces_.push_back(std::move(piece));
}

void StateBundle::add_tensor(std::size_t layer, KvHalf half, std::uint64_t size) {
  Piece piece;
  piece.begin = size_;
  piece.size = size;
  piece.is_tensor = true;
  piece.layer = layer;
  piece.half = half;
  size_ += size;
  if (size != 0) pieces_.push_back(std::move(piece));
}

// Entries in the order that torch.save has: the tree, the byte order, the storages, the version.
void StateBundle::lay_out(const BundleSpec& spec) {
  ZipLayout zip;
  const auto add_whole = [&](const std::string& name, Bytes bytes) {
    add_bytes(zip.header(name, bytes.size(), ZipLayout::crc_of(bytes), size_));
    add_bytes(std::move(bytes));
  };
  const auto text = [](std::string_view value) { return Bytes(value.begin(), value.end()); };
  add_whole("archive/data.pkl", pt_pickle(spec));
  add_whole("archive/byteorder", text("little"));
  std::size_t key = 0;
  const auto next_name = [&] { return "archive/data/" + std::to_string(key++); };
  add_whole(next_name(), as_i64(spec.tokens));
  for (const auto& positions : spec.positions) add_whole(next_name(), as_i64(positions));
  for (std::size_t i = 0; i < spec.layers.size(); ++i) {
    for (const KvHalf half : {KvHalf::kKey, KvHalf::kValue}) {
      const std::uint64_t size = bytes_of(spec, i, half);
      add_bytes(zip.header(next_name(), size, 0, size_));
      add_tensor(i, half, size);
    }
  }
  add_whole("archive/version", text("3\n"));
  add_bytes(zip.directory(size_));
}

bool StateBundle::frames(ByteSpan file) const {
  return file.size() == size_ && std::ranges::all_of(pieces_, [&](const Piece& piece) {
           return piece.is_tensor ||
                  std::ranges::equal(piece.bytes, file.subspan(piece.begin, piece.size));
         });
}

Result<std::size_t> StateBundle::read(std::uint64_t offset, MutableByteSpan out,
                                      const ReadTensor& tensor) const {
  if (offset >= size_) return std::size_t{0};
  out = out.first(std::min<std::uint64_t>(out.size(), size_ - offset));
  auto piece = std::ranges::upper_bound(pieces_, offset, {}, &Piece::begin);
  std::size_t done = 0;
  for (--piece; done < out.size(); ++piece) {
    const std::uint64_t within = offset + done - piece->begin;
    const MutableByteSpan part =
        out.subspan(done, std::min<std::uint64_t>(out.size() - done, piece->size - within));
    if (piece->is_tensor) {
      KVFS_TRY(tensor(piece->layer, piece->half, within, part));
    } else {
      std::copy_n(piece->bytes.begin() + static_cast<std::ptrdiff_t>(within), part.size(),
                  part.begin());
    }
    done += part.size();
  }
  return done;
}

}  // namespace kvfs::container

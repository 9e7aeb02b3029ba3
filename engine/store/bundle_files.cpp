#include "engine/store/bundle_files.h"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "codec/base/floats.h"
#include "codec/container/npy.h"
#include "engine/store/block_views.h"

namespace kvfs::store {
namespace {

using container::SafetensorsHeader;
using container::TensorEntry;

// Sections one after the other; a tensor's is converted.
class SectionsView final : public FileView {
 public:
  void add(Bytes bytes) {
    owned_.push_back(std::make_unique<const Bytes>(std::move(bytes)));
    add(*owned_.back(), DType::kU8, DType::kU8);
  }
  void add(ByteSpan bytes, DType from, DType to) {
    const std::uint64_t size = bytes.size() / size_of(from) * size_of(to);
    sections_.push_back({size_, size, bytes, from, to});
    size_ += size;
  }

  std::uint64_t size() const override { return size_; }

  Result<std::size_t> read(std::uint64_t offset, MutableByteSpan out) override {
    if (offset >= size_) return 0;
    out = out.first(std::min<std::uint64_t>(out.size(), size_ - offset));
    for (const Section& section : sections_) {
      const std::uint64_t from = std::max(section.begin, offset);
      const std::uint64_t to = std::min(section.begin + section.size, offset + out.size());
      if (from < to)
        KVFS_TRY(copy(section, from - section.begin, out.subspan(from - offset, to - from)));
    }
    return out.size();
  }

 private:
  struct Section {
    std::uint64_t begin = 0, size = 0;  // as they are read
    ByteSpan bytes;
    DType from, to;
  };

  // Whole elements at once; what a read cuts, by itself.
  static Status copy(const Section& section, std::uint64_t at, MutableByteSpan out) {
    const std::size_t wide = size_of(section.from), slim = size_of(section.to);
    while (!out.empty()) {
      const std::size_t skip = at % slim;
      const bool whole = skip == 0 && out.size() >= slim;
      const std::size_t elements = whole ? out.size() / slim : 1;
      const ByteSpan in = section.bytes.subspan(at / slim * wide, elements * wide);
      std::array<std::uint8_t, 8> cut;
      const MutableByteSpan to =
          whole ? out.first(elements * slim) : MutableByteSpan(cut).first(slim);
      if (!convert_floats(section.from, in, section.to, to)) {
        return fail(ErrorCode::kInvalid, "a tensor of " + std::string(name_of(section.from)),
                    "it holds values too large for the model's " + std::string(name_of(section.to)),
                    "import it where the model computes in another type");
      }
      const std::size_t n = whole ? to.size() : std::min(out.size(), slim - skip);
      if (!whole) std::copy_n(to.begin() + static_cast<std::ptrdiff_t>(skip), n, out.begin());
      out = out.subspan(n);
      at += n;
    }
    return {};
  }

  std::vector<std::unique_ptr<const Bytes>> owned_;
  std::vector<Section> sections_;
  std::uint64_t size_ = 0;
};

// "layers.7.key" → 7 and "key".
std::pair<std::string_view, std::string_view> parts_of(std::string_view name) {
  constexpr std::string_view kPrefix = "layers.";
  if (!name.starts_with(kPrefix)) return {};
  name.remove_prefix(kPrefix.size());
  const std::size_t dot = name.find('.');
  if (dot == std::string_view::npos) return {};
  return {name.substr(0, dot), name.substr(dot + 1)};
}

}  // namespace

std::unique_ptr<FileView> imported_tokens(const std::vector<TokenId>& tokens) {
  container::NpyHeader header{.dtype = DType::kI32, .shape = {tokens.size()}};
  ByteWriter out;
  out.raw(make_npy_header(header));
  for (const TokenId token : tokens) out.number(token);
  return std::make_unique<MemoryView>(out.take());
}

std::unique_ptr<FileView> imported_layer(const container::ImportedLayer& layer,
                                         const std::vector<Position>& positions, DType dtype) {
  const auto whole = [](const container::TensorView& tensor) {
    std::vector<std::uint64_t> shape = tensor.shape;
    shape.insert(shape.begin(), 1);
    return shape;
  };
  SafetensorsHeader header;
  header.tensors = {{.name = "key", .dtype = dtype, .shape = whole(layer.key)},
                    {.name = "value", .dtype = dtype, .shape = whole(layer.value)},
                    {.name = "positions", .dtype = DType::kI32, .shape = {positions.size()}}};
  if (positions.size() != layer.key.shape[1]) {
    header.tensors.back().shape = {layer.key.shape[0], layer.key.shape[1]};
  }
  ByteWriter numbers;
  for (const Position position : positions) numbers.number(position);
  auto out = std::make_unique<SectionsView>();
  out->add(make_safetensors_header(header));
  out->add(layer.key.bytes, layer.key.dtype, dtype);
  out->add(layer.value.bytes, layer.value.dtype, dtype);
  out->add(numbers.take());
  return out;
}

std::vector<std::unique_ptr<FileView>> bundled_layers(const SafetensorsHeader& header,
                                                      ByteSpan file, std::size_t layers) {
  std::vector<SafetensorsHeader> headers(layers);
  std::vector<std::vector<ByteSpan>> tensors(layers);
  for (const TensorEntry& entry : header.tensors) {
    const auto [number, name] = parts_of(entry.name);
    for (std::size_t i = 0; !number.empty() && i < layers; ++i) {
      if (number != std::to_string(i)) continue;
      headers[i].tensors.push_back(
          {.name = std::string(name), .dtype = entry.dtype, .shape = entry.shape});
      tensors[i].push_back(file.subspan(header.data_offset + entry.begin, entry.end - entry.begin));
    }
  }
  std::vector<std::unique_ptr<FileView>> out;
  for (std::size_t i = 0; i < layers; ++i) {
    auto view = std::make_unique<SectionsView>();
    view->add(make_safetensors_header(headers[i]));
    for (const ByteSpan tensor : tensors[i]) view->add(tensor, DType::kU8, DType::kU8);
    out.push_back(std::move(view));
  }
  return out;
}

bool has_bundle_order(const SafetensorsHeader& header) {
  std::vector<std::string> names{"input_ids"};
  const auto has = [&](const std::string& name) {
    return std::ranges::find(header.tensors, name, &TensorEntry::name) != header.tensors.end();
  };
  for (std::size_t i = 0; names.size() < header.tensors.size(); ++i) {
    const std::string layer = "layers." + std::to_string(i) + ".";
    const std::size_t before = names.size();
    for (const char* name : {"key", "value", "conv", "positions", "head_offsets"}) {
      if (has(layer + name)) names.push_back(layer + name);
    }
    if (names.size() == before) return false;
  }
  return std::ranges::equal(names, header.tensors, {}, {}, &TensorEntry::name);
}

}  // namespace kvfs::store

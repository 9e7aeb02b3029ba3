#include "codec/container/state_bundle.h"

#include <algorithm>
#include <utility>

#include "codec/container/bundle_sums.h"
#include "codec/container/pickle_writer.h"
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

std::size_t range_of(std::size_t layer, KvHalf half) {
  return 2 * layer + (half == KvHalf::kKey ? 0 : 1);
}

// What torch's stream form of one storage has before its bytes: magic number, version, system, the
// storage's name, its key, its elements. (torch/serialization.py, _legacy_save)
Bytes stream_front(const BundleTensor& tensor) {
  constexpr std::string_view kMagicAndVersion(
      "\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20j\xa8P\x19.\x80\x02M\xe9\x03.", 21);
  PickleWriter system(2);
  system.op(kEmptyDict);
  system.op(kMark);
  system.text("protocol_version");
  system.whole(1001);
  system.text("little_endian");
  system.op(kNewTrue);
  system.text("type_sizes");
  system.op(kEmptyDict);
  system.op(kSetItems);
  system.op(kStop);
  PickleWriter name(2);
  name.storage(tensor.dtype, "0", tensor.elements(), PickleWriter::Within::kStream);
  name.op(kStop);
  PickleWriter keys(2);
  keys.op(kEmptyList);
  keys.text("0");
  keys.op(kAppend);
  keys.op(kStop);
  ByteWriter out;
  out.raw(as_bytes(kMagicAndVersion));
  out.raw(system.take());
  out.raw(name.take());
  out.raw(keys.take());
  out.number(tensor.elements());
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
    const BundleLayer& layer = spec.layers[i];
    if (positions.size() != layer.tokens && positions.size() != layer.heads * layer.tokens) {
      return refuse("layer " + std::to_string(i) + ": " + std::to_string(positions.size()) +
                    " positions, " + std::to_string(layer.tokens) + " tokens");
    }
  }
  return {};
}

}  // namespace

Bytes as_i64(const std::vector<std::int32_t>& numbers) {
  ByteWriter out;
  for (const std::int32_t number : numbers) out.number(std::int64_t{number});
  return out.take();
}

StateBundle::StateBundle() = default;
StateBundle::StateBundle(StateBundle&&) noexcept = default;
StateBundle& StateBundle::operator=(StateBundle&&) noexcept = default;
StateBundle::~StateBundle() = default;

Result<StateBundle> StateBundle::make(const BundleSpec& spec, BundleForm form) {
  KVFS_TRY(check(spec));
  StateBundle out;
  switch (form) {
    case BundleForm::kPt:
      out.lay_out_pt(spec);
      break;
    case BundleForm::kPkl:
      out.lay_out_pkl(spec);
      break;
    case BundleForm::kNpz:
      out.lay_out_npz(spec);
      break;
  }
  return out;
}

// Entries in the order that torch.save has: the tree, the byte order, the storages, the version.
void StateBundle::lay_out_pt(const BundleSpec& spec) {
  ZipLayout zip;
  const auto add_whole = [&](const std::string& name, Bytes bytes) {
    file_.add(zip.header(name, bytes.size(), ZipLayout::crc_of(bytes), file_.size()));
    file_.add(std::move(bytes));
  };
  const auto text = [](std::string_view value) { return Bytes(value.begin(), value.end()); };
  PickleWriter tree(2);
  std::size_t storages = 0;
  put_tree(tree, spec, [&](const BundleTensor& tensor) {
    tree.tensor(tensor.shape, [&] {
      tree.storage(tensor.dtype, std::to_string(storages++), tensor.elements(),
                   PickleWriter::Within::kZip);
    });
  });
  add_whole("archive/data.pkl", tree.take());
  add_whole("archive/byteorder", text("little"));
  std::size_t key = 0;
  const auto next_name = [&] { return "archive/data/" + std::to_string(key++); };
  add_whole(next_name(), as_i64(spec.tokens));
  for (const auto& positions : spec.positions) add_whole(next_name(), as_i64(positions));
  for (std::size_t i = 0; i < spec.layers.size(); ++i) {
    for (const KvHalf half : {KvHalf::kKey, KvHalf::kValue}) {
      const std::uint64_t size = bytes_of(spec, i, half);
      file_.add(zip.header(next_name(), size, 0, file_.size()));
      file_.add_range(range_of(i, half), size);
    }
  }
  add_whole("archive/version", text("3\n"));
  file_.add(zip.directory(file_.size()));
}

// A pickle whose storages are cut out of it: each is the one argument of _load_from_bytes.
void StateBundle::lay_out_pkl(const BundleSpec& spec) {
  constexpr std::uint8_t kWithLargeBytes = 4;
  PickleWriter out(kWithLargeBytes);
  put_tree(out, spec, [&](const BundleTensor& tensor) {
    out.tensor(tensor.shape, [&] {
      const Bytes front = stream_front(tensor);
      const std::uint64_t size = tensor.elements() * size_of(tensor.dtype);
      out.global("torch.storage", "_load_from_bytes");
      out.op(kBinBytes8);
      ByteWriter length;
      length.number(front.size() + size);
      out.raw(as_text(length.bytes()));
      file_.add(out.take());
      file_.add(front);
      if (tensor.numbers != nullptr) {
        file_.add(as_i64(*tensor.numbers));
      } else {
        file_.add_range(range_of(tensor.layer, tensor.half), size);
      }
      out.op(kTuple1);
      out.op(kReduce);
    });
  });
  file_.add(out.take());
}

Result<std::size_t> StateBundle::read(std::uint64_t offset, MutableByteSpan out,
                                      const ReadTensor& tensor) const {
  return file_.read(offset, out, [&](std::size_t range, std::uint64_t at, MutableByteSpan part) {
    if (sums_) return sums_->read(range, at, part, tensor);
    return tensor(range / 2, range % 2 == 0 ? KvHalf::kKey : KvHalf::kValue, at, part);
  });
}

}  // namespace kvfs::container

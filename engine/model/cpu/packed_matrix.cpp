// Packing of weights for the kernels: see Packing in kernels.h for the layouts.
#include <algorithm>
#include <bit>
#include <cstring>

#include "engine/model/cpu/matrix.h"
#include "engine/model/dequantize.h"
#include "engine/model/repack.h"

namespace kvfs::model::cpu {
namespace {

using container::GgmlType;

Packing packing_of(GgmlType type) {
  switch (type) {
    case GgmlType::kQ4_0:
      return Packing::kQ4_0;
    case GgmlType::kQ4_1:
      return Packing::kQ4_1;
    case GgmlType::kQ8_0:
      return Packing::kQ8_0;
    case GgmlType::kF16:
      return Packing::kF16;
    case GgmlType::kBF16:
      return Packing::kBF16;
    default:
      return Packing::kF32;
  }
}
bool is_quantized(Packing packing) {
  return packing == Packing::kQ4_1 || packing == Packing::kQ4_0 || packing == Packing::kQ8_0;
}
std::size_t unit_bytes(Packing packing, int inputs) {
  const auto n = static_cast<std::size_t>(inputs);
  switch (packing) {
    case Packing::kQ4_1:
      return n / kBlock * 160;
    case Packing::kQ4_0:
      return n / kBlock * 144;
    case Packing::kQ8_0:
      return n / kBlock * 272;
    case Packing::kF32:
      return n * kPanel * 4;
    case Packing::kF16:
    case Packing::kBF16:
      return n * kPanel * 2;
  }
  return 0;
}

// One row of 4-bit blocks into lane `lane` of its group. header: bytes of d (and m) in the file.
void pack_q4(const std::uint8_t* from, int blocks, bool has_min, int lane, std::uint8_t* group) {
  const std::size_t header = has_min ? 4 : 2;
  for (int b = 0; b < blocks; ++b, from += header + 16, group += has_min ? 160 : 144) {
    for (int k = 0; k < 16; ++k) {
      // Input k is the file's low nibble, input k + 16 the high one: as here, where groups of four
      // inputs g and g + 4 share bytes.
      group[32 * (k / 4) + 4 * lane + k % 4] = from[header + static_cast<std::size_t>(k)];
    }
    std::memcpy(group + 128 + 2 * lane, from, 2);
    if (has_min) std::memcpy(group + 144 + 2 * lane, from + 2, 2);
  }
}

void pack_q8(const std::uint8_t* from, int blocks, int lane, std::uint8_t* group) {
  for (int b = 0; b < blocks; ++b, from += 34, group += 272) {
    for (int k = 0; k < 32; ++k) group[32 * (k / 4) + 4 * lane + k % 4] = from[2 + k];
    std::memcpy(group + 256 + 2 * lane, from, 2);
  }
}

template <class Element>
void pack_plain(const std::uint8_t* from, int inputs, int slot, std::uint8_t* panel) {
  for (int k = 0; k < inputs; ++k) {
    std::memcpy(panel + (static_cast<std::size_t>(k) * kPanel + static_cast<std::size_t>(slot)) *
                            sizeof(Element),
                from + static_cast<std::size_t>(k) * sizeof(Element), sizeof(Element));
  }
}

void pack_row(Packing packing, const std::uint8_t* from, int inputs, int lane, std::uint8_t* unit) {
  switch (packing) {
    case Packing::kQ4_1:
      return pack_q4(from, inputs / kBlock, true, lane, unit);
    case Packing::kQ4_0:
      return pack_q4(from, inputs / kBlock, false, lane, unit);
    case Packing::kQ8_0:
      return pack_q8(from, inputs / kBlock, lane, unit);
    case Packing::kF32:
      return pack_plain<float>(from, inputs, lane, unit);
    case Packing::kF16:
      return pack_plain<std::uint16_t>(from, inputs, lane, unit);
    case Packing::kBF16:
      return pack_plain<std::uint16_t>(from, inputs, bf16_slot(lane), unit);
  }
}

class PackedMatrix final : public Matrix {
 public:
  PackedMatrix(const Rows& rows, const Kernels& kernels, ForkJoin& pool, Arena& arena)
      : kernels_(kernels) {
    const GgmlType kind = repacked_type(rows.type());
    const Packing packing = packing_of(kind);
    const int lanes = is_quantized(packing) ? kGroup : kPanel;
    units_ = (rows.count() + lanes - 1) / lanes;
    const std::size_t unit = unit_bytes(packing, rows.inputs);
    bytes_ = unit * static_cast<std::size_t>(units_);
    std::uint8_t* const data = arena.take(bytes_);
    view_ = {packing, rows.inputs, rows.count(), data};
    pool.for_each(units_, [&](int u, int) {
      Bytes scratch;
      Bytes repacked;
      for (int lane = 0; lane < std::min(lanes, rows.count() - u * lanes); ++lane) {
        ByteSpan row = rows.row(u * lanes + lane, scratch);
        if (kind != rows.type()) {
          repack_row(rows.type(), row, static_cast<std::size_t>(rows.inputs), repacked);
          row = repacked;
        }
        pack_row(packing, row.data(), rows.inputs, lane,
                 data + unit * static_cast<std::size_t>(u));
      }
    });
  }

  bool wants_quantized() const override { return is_quantized(view_.packing); }
  std::uint64_t bytes() const override { return bytes_; }

  Status multiply(const Activations& in, Output out, ForkJoin& pool) const override {
    // Pieces small enough that a thread which started late finds work, and whose weights stay in
    // the second cache while many rows pass.
    const int most =
        std::max(1, static_cast<int>((96U << 10) / (bytes_ / static_cast<std::size_t>(units_))));
    const int piece = std::clamp(units_ / (8 * pool.threads()), 1, most);
    pool.for_each((units_ + piece - 1) / piece, [&](int index, int) {
      const int begin = index * piece;
      const int end = std::min(units_, begin + piece);
      if (wants_quantized()) {
        kernels_.multiply_quantized(in.quantized, view_, begin, end, out);
      } else {
        kernels_.multiply_plain(in.values, in.rows, view_, begin, end, out);
      }
    });
    return {};
  }

 private:
  const Kernels& kernels_;
  int units_ = 0;
  std::size_t bytes_ = 0;
  MatrixView view_{};
};

}  // namespace

int Rows::count() const {
  int total = 0;
  for (const Slice& slice : slices) total += slice.rows;
  return total;
}

ByteSpan Rows::row(int index, Bytes& scratch) const {
  for (const Slice& slice : slices) {
    if (index >= slice.rows) {
      index -= slice.rows;
      continue;
    }
    const int in_order =
        slice.permuted_head_width > 0 ? unpermuted_row(index, slice.permuted_head_width) : index;
    const auto row = static_cast<std::size_t>(slice.first + in_order);
    if (!slice.transposed) return row_of(*slice.tensor, row);
    const std::size_t element = block_bytes(slice.tensor->type);
    const auto stride = static_cast<std::size_t>(slice.tensor->dims[0]) * element;
    scratch.resize(static_cast<std::size_t>(inputs) * element);
    for (std::size_t i = 0; i < static_cast<std::size_t>(inputs); ++i) {
      std::memcpy(scratch.data() + i * element,
                  slice.tensor->bytes.data() + i * stride + row * element, element);
    }
    return scratch;
  }
  return {};
}

std::unique_ptr<Matrix> pack_matrix(const Rows& rows, const Kernels& kernels, ForkJoin& pool,
                                    Arena& arena) {
  return std::make_unique<PackedMatrix>(rows, kernels, pool, arena);
}

std::uint64_t packed_bytes(GgmlType file_type, std::uint64_t elements) {
  const GgmlType type = repacked_type(file_type);
  return elements / block_elements(type) * block_bytes(type);
}

}  // namespace kvfs::model::cpu

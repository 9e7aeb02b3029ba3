// A weight matrix and how it is multiplied: packed for the kernels of this folder, or libtorch's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "codec/base/result.h"
#include "engine/model/architecture.h"
#include "engine/model/cpu/fork_join.h"
#include "engine/model/cpu/huge_memory.h"
#include "engine/model/cpu/kernels.h"

namespace kvfs::model::cpu {

// Activations: fp32, and the same as int8 when a matrix wants_quantized().
struct Activations {
  const float* values;  // [rows, inputs]
  QuantizedRows quantized;
  int rows;
  bool reading;  // a prompt's rows, else generated tokens
};

class Matrix {
 public:
  virtual ~Matrix() = default;
  virtual bool wants_quantized() const = 0;
  virtual std::uint64_t bytes() const = 0;
  // out.y[row · stride + output] for all outputs; up to 7 floats after a row's last output are
  // overwritten, so rows are padded to a multiple of 8. kIo, kInternal: libtorch refused.
  virtual Status multiply(const Activations& in, Output out, ForkJoin& pool) const = 0;
};

// Rows of one or more slices of one kind and the same inputs, one below the other.
struct Rows {
  int inputs = 0;
  std::vector<Slice> slices;
  int count() const;
  container::GgmlType type() const { return slices.front().tensor->type; }
  // As the file has it; gathered into scratch where the file has it transposed.
  ByteSpan row(int index, Bytes& scratch) const;
};

// For the kernels: quantized kinds stay quantized, plain kinds keep their width. The matrix lies in
// arena, which must outlive it.
std::unique_ptr<Matrix> pack_matrix(const Rows& rows, const Kernels& kernels, ForkJoin& pool,
                                    Arena& arena);
// Bytes that so many elements take there.
std::uint64_t packed_bytes(container::GgmlType type, std::uint64_t elements);
// fp32 through libtorch, rows padded to 64 (reading) or 16 (generating): a GEMM's shape decides its
// rounding, so it never varies.
Result<std::unique_ptr<Matrix>> torch_matrix(const Rows& rows, ForkJoin& pool);
void keep_torch_single();  // its own threads stay out of it

}  // namespace kvfs::model::cpu

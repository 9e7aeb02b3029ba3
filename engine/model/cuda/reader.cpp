#include "engine/model/cuda/reader.h"

#include <ATen/cuda/CUDAContext.h>

#include <algorithm>
#include <cstring>

#include "engine/model/cuda/cuda_model.h"
#include "engine/model/cuda/decode_packed.h"

namespace kvfs::model::cuda {
namespace {

void check(cudaError_t error) {
  if (error != cudaSuccess) throw ForwardError(error);
}

cudaStream_t stream() { return at::cuda::getCurrentCUDAStream(); }

template <class T>
T* data(const at::Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

// The parts of a prompt that lie in one grid each.
std::vector<ReadRows> grids_of(int position, int count) {
  std::vector<ReadRows> out;
  while (count > 0) {
    const int first = position % kGridRows;
    const int here = std::min(count, kGridRows - first);
    out.push_back({first, here, position});
    position += here;
    count -= here;
  }
  return out;
}

}  // namespace

Reader::Reader(const LlamaSizes& s, const Weights& weights, const PageShape& pages,
               at::Device device)
    : sizes_(s), weights_(weights), pages_(pages), device_(device) {
  const auto fp32 = at::TensorOptions().dtype(at::kFloat).device(device);
  const auto bf16 = fp32.dtype(at::kBFloat16);
  const std::int64_t head_row = std::int64_t{s.heads} * s.head_width;
  residual_ = at::zeros({kMostGrids, kGridRows, s.width}, fp32);
  normed_ = at::zeros({kMostGrids, kGridRows, s.width}, bf16);
  qkv_ = at::zeros({kGridRows, head_row + 2 * std::int64_t{s.kv_heads} * s.head_width}, fp32);
  attended_ = at::zeros({kGridRows, head_row}, bf16);
  projected_ = at::zeros({kGridRows, s.width}, fp32);
  gate_up_ = at::zeros({kGridRows, 2 * std::int64_t{s.ffn_width}}, bf16);
  gated_ = at::zeros({kGridRows, s.ffn_width}, bf16);
  last_x_ = at::zeros({s.width}, bf16);
  last_squares_ = at::zeros({s.width / kTileOutputs}, fp32);
  logits_ = at::zeros({s.vocab}, fp32);
}

float* Reader::residual(std::size_t grid) const {
  return data<float>(residual_) +
         static_cast<std::int64_t>(grid) * std::int64_t{kGridRows} * sizes_.width;
}
__nv_bfloat16* Reader::normed(std::size_t grid) const {
  return data<__nv_bfloat16>(normed_) +
         static_cast<std::int64_t>(grid) * std::int64_t{kGridRows} * sizes_.width;
}

Reader::Uploaded Reader::upload(const DeviceSequence& sequence, std::span<const TokenId> tokens) {
  constexpr std::size_t pages_at = kMostGrids * kGridRows * sizeof(std::int32_t);
  const auto pages = static_cast<std::size_t>(sequence.pages());
  const std::size_t bytes = pages_at + pages * sizeof(void*);
  std::byte* host = to_device_.room(bytes);
  if (host == nullptr) throw ForwardError(cudaErrorMemoryAllocation);
  std::memcpy(host, tokens.data(), tokens.size_bytes());
  for (std::size_t i = 0; i < pages; ++i) {
    const void* address = sequence.page_address(static_cast<int>(i));
    std::memcpy(host + pages_at + i * sizeof(address), &address, sizeof(address));
  }
  if (!uploaded_.defined() || uploaded_.numel() < static_cast<std::int64_t>(bytes)) {
    uploaded_ = at::empty({static_cast<std::int64_t>(std::bit_ceil(bytes))},
                          at::TensorOptions().dtype(at::kByte).device(device_));
  }
  auto* device = data<std::byte>(uploaded_);
  check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream()));
  return {reinterpret_cast<const std::int32_t*>(device),
          reinterpret_cast<void* const*>(device + pages_at)};
}

at::Tensor Reader::dense(const WeightMatrix& w, std::size_t place) {
  if (!w.packed()) return w.data;
  at::Tensor& out = dense_[place];
  if (!out.defined()) {
    out = at::empty({w.matrix.outputs, w.matrix.inputs},
                    at::TensorOptions().dtype(at::kBFloat16).device(device_));
  }
  check(unpack(w.matrix, data<__nv_bfloat16>(out), stream()));
  return out;
}

void Reader::read_layer(int layer, std::span<const ReadRows> grids, void* const* pages) {
  const auto index = static_cast<std::size_t>(layer);
  const LayerWeights& w = weights_.layers[index];
  const bool last = index + 1 == weights_.layers.size();
  const at::Tensor& next_norm = last ? weights_.output_norm : weights_.layers[index + 1].attn_norm;
  const at::Tensor qkv = dense(w.qkv, 0);
  const at::Tensor out = dense(w.out, 1);
  const at::Tensor gate_up = dense(w.gate_up, 2);
  const at::Tensor down = dense(w.down, 3);
  const KvPlace kv{pages, pages_.offset(layer, 0), pages_.offset(layer, 1)};
  auto* attended = data<__nv_bfloat16>(attended_);
  for (std::size_t grid = 0; grid < grids.size(); ++grid) {
    const ReadRows& rows = grids[grid];
    const at::Tensor normed_rows = normed_[static_cast<std::int64_t>(grid)];
    const auto add_projected = [&](const at::Tensor& norm) {
      check(add_and_norm(data<float>(projected_), rows, sizes_.width, data<float>(norm),
                         sizes_.rms_epsilon, residual(grid), normed(grid), stream()));
    };
    at::mm_out(qkv_, normed_rows, qkv.t(), at::kFloat);
    check(turn_and_store(data<float>(qkv_), data<float>(weights_.frequencies), rows, heads(), kv,
                         attended, stream()));
    check(attend_rows(attended, rows, heads(), kv, stream()));
    at::mm_out(projected_, attended_, out.t(), at::kFloat);
    add_projected(w.ffn_norm);
    at::mm_out(gate_up_, normed_rows, gate_up.t());
    check(gate_rows(data<__nv_bfloat16>(gate_up_), rows, sizes_.ffn_width,
                    data<__nv_bfloat16>(gated_), stream()));
    at::mm_out(projected_, gated_, down.t(), at::kFloat);
    add_projected(next_norm);
  }
}

void Reader::read(const DeviceSequence& sequence, std::span<const TokenId> tokens,
                  std::span<float> logits) {
  const std::vector<ReadRows> grids =
      grids_of(sequence.next_pos(), static_cast<int>(tokens.size()));
  const Uploaded uploaded = upload(sequence, tokens);
  const std::int32_t* ids = uploaded.tokens;
  for (std::size_t grid = 0; grid < grids.size(); ++grid) {
    check(begin_rows(data<__nv_bfloat16>(weights_.embedding), ids, grids[grid], sizes_.width,
                     data<float>(weights_.layers.front().attn_norm), sizes_.rms_epsilon,
                     residual(grid), normed(grid), stream()));
    ids += grids[grid].count;
  }
  for (int layer = 0; layer < sizes_.layers; ++layer) read_layer(layer, grids, uploaded.pages);
  if (!logits.empty()) {
    const ReadRows& rows = grids.back();
    const float* row =
        residual(grids.size() - 1) + std::int64_t{rows.first + rows.count - 1} * sizes_.width;
    const NormRows normed_row{data<__nv_bfloat16>(last_x_), data<float>(last_squares_)};
    check(last_row(row, sizes_.width, data<float>(weights_.output_norm), normed_row, stream()));
    check(project(weights_.output.matrix, normed_row, sizes_.rms_epsilon, 1, data<float>(logits_),
                  stream()));
    std::byte* host = from_device_.room(logits.size_bytes());
    if (host == nullptr) throw ForwardError(cudaErrorMemoryAllocation);
    check(cudaMemcpyAsync(host, data<float>(logits_), logits.size_bytes(), cudaMemcpyDeviceToHost,
                          stream()));
    check(cudaStreamSynchronize(stream()));
    std::memcpy(logits.data(), host, logits.size_bytes());
    return;
  }
  check(cudaStreamSynchronize(stream()));
}

}  // namespace kvfs::model::cuda

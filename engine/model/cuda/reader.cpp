#include "engine/model/cuda/reader.h"

#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "engine/model/cuda/cuda_model.h"
#include "engine/model/cuda/decode_packed.h"

namespace kvfs::model::cuda {
namespace {

void check(cudaError_t error) {
  if (error != cudaSuccess) throw ForwardError(error);
}

cudaStream_t stream() { return c10::cuda::getCurrentCUDAStream(); }

template <class T>
T* data(const at::Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

}  // namespace

Reader::Reader(const LlamaSizes& s, const Weights& weights, const PageShape& pages,
               at::Device device)
    : sizes_(s), weights_(weights), pages_(pages), device_(device), general_attention_(device) {
  const auto fp32 = at::TensorOptions().dtype(at::kFloat).device(device);
  const auto narrow = fp32.dtype(weights.embedding.scalar_type());  // of weights and activations
  const std::int64_t head_row = std::int64_t{s.heads} * s.head_width;
  const std::int64_t qkv_row = head_row + 2 * std::int64_t{s.kv_heads} * s.head_width;
  const LayerWeights& w = weights_.layers.front();
  constexpr std::int64_t kRows = kMostGrids * kGridRows;
  static_assert(kRows == RowProduct::kMost);
  residual_ = at::zeros({kRows, s.width}, fp32);
  normed_ = at::zeros({kRows, s.width}, narrow);
  attended_ = head_row == s.width ? normed_ : at::zeros({kRows, head_row}, narrow);
  const at::Tensor shared =
      at::zeros({kRows * std::max<std::int64_t>(2 * qkv_row, s.ffn_width)}, narrow);
  qkv_ = shared.narrow(0, 0, kRows * 2 * qkv_row).view(at::kFloat).view({kRows, qkv_row});
  gated_ = shared.narrow(0, 0, kRows * s.ffn_width).view({kRows, s.ffn_width});
  gate_up_ = at::zeros({kGateRows, 2 * std::int64_t{s.ffn_width}}, narrow);
  last_x_ = at::zeros({s.width}, narrow);
  last_squares_ = at::zeros({s.width / kTileOutputs}, fp32);
  logits_ = at::zeros({s.vocab}, fp32);

  const auto add = [&](const WeightMatrix& matrix, const at::Tensor& in, const at::Tensor& out,
                       bool adds) {
    products_.emplace_back(dense(matrix, products_.size()), in, out, adds, kGridRows);
    at::Tensor(out).zero_();
  };
  add(w.qkv, normed_, qkv_, false);
  add(w.out, attended_, residual_, true);
  add(w.gate_up, normed_.narrow(0, 0, kGateRows), gate_up_, false);
  add(w.down, gated_, residual_, true);
  c10::cuda::CUDACachingAllocator::emptyCache();  // of what the trials took
}

std::uint64_t Reader::memory(const LlamaSizes& s) {
  const auto heads = static_cast<std::uint64_t>(s.heads);
  const std::uint64_t qkv_row = (heads + 2 * static_cast<std::uint64_t>(s.kv_heads)) *
                                static_cast<std::uint64_t>(s.head_width);
  const auto width = static_cast<std::uint64_t>(s.width);
  const auto ffn = static_cast<std::uint64_t>(s.ffn_width);
  const std::uint64_t of_row = 4 * width + 2 * width +
                               2 * heads * static_cast<std::uint64_t>(s.head_width) +
                               std::max(4 * qkv_row, 2 * ffn);
  return std::uint64_t{kMostGrids} * kGridRows * of_row + std::uint64_t{kGateRows} * 4 * ffn;
}

bool Reader::all_take(std::int64_t rows) const {
  return products_[0].has(rows) && products_[1].has(rows) && products_[3].has(rows);
}

std::vector<Reader::Part> Reader::parts_of(int position, int count) const {
  std::vector<Part> out;
  std::int64_t grid = 0;
  while (count > 0) {
    const int first = position % kGridRows;
    int grids = 1;
    while (first == 0 && count >= 2 * grids * kGridRows && grids < kMostGrids &&
           all_take(2 * grids * kGridRows)) {
      grids *= 2;
    }
    const int here = std::min(count, grids * kGridRows - first);
    out.push_back({grid, grids, {first, here, position}});
    grid += grids;
    position += here;
    count -= here;
  }
  return out;
}

template <class T>
T* Reader::rows(const at::Tensor& buffer, const Part& part) const {
  return data<T>(buffer) + part.grid * kGridRows * buffer.size(1);
}

Reader::Uploaded Reader::upload(const DeviceSequence& sequence, std::span<const TokenId> tokens) {
  constexpr std::size_t places_at = kMostGrids * kGridRows * sizeof(std::int32_t);
  constexpr std::size_t pages_at = places_at + kMostGrids * kGridRows * sizeof(RowPlace);
  const auto pages = static_cast<std::size_t>(sequence.pages());
  const std::size_t bytes = pages_at + pages * sizeof(void*);
  std::byte* host = to_device_.room(bytes);
  if (host == nullptr) throw ForwardError(cudaErrorMemoryAllocation);
  std::memcpy(host, tokens.data(), tokens.size_bytes());
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const RowPlace place{sequence.next_pos() + static_cast<int>(i), 0};
    std::memcpy(host + places_at + i * sizeof(place), &place, sizeof(place));
  }
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
          reinterpret_cast<void* const*>(device + pages_at),
          reinterpret_cast<const RowPlace*>(device + places_at)};
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

Turning Reader::turning() const {
  return {data<float>(weights_.frequencies), sizes_.head_width / 2};
}

void Reader::attend(int layer, const Part& part, ReadRows wanted, const Task& task) {
  if (task.watch != nullptr) {
    task.watch->see_queries(layer, rows<float>(qkv_, part) + part.rows.first * qkv_.size(1),
                            part.rows.position, part.rows.count, heads());
  }
  if (task.general) return attend_generally(layer, part, wanted, task);
  const KvPlace kv{task.uploaded.pages, pages_.offset(layer, 0), pages_.offset(layer, 1)};
  auto* attended = rows<__nv_bfloat16>(attended_, part);
  check(turn_and_store(rows<float>(qkv_, part), data<float>(weights_.frequencies), part.rows,
                       heads(), kv, attended, stream()));
  if (wanted.count > 0) check(attend_rows(attended, wanted, heads(), kv, stream(), true, fp16()));
}

void Reader::attend_generally(int layer, const Part& part, ReadRows wanted, const Task& task) {
  const KvPlace kv{task.uploaded.pages, pages_.offset(layer, 0), pages_.offset(layer, 1)};
  const auto row = [&](int index) {
    return rows<float>(qkv_, part) + std::int64_t{index} * qkv_.size(1);
  };
  const RowPlace* places = task.uploaded.places - task.position;  // by position
  check(rope_and_store<__nv_bfloat16>(row(part.rows.first), turning(), places + part.rows.position,
                                      part.rows.count, heads(), kv, stream()));
  const bool all = task.watch != nullptr && task.watch->weights != nullptr;
  const ReadRows& looking = all ? part.rows : wanted;
  const AttentionRule rule{1.0F / std::sqrt(static_cast<float>(sizes_.head_width))};
  for_activations(fp16(), [&]<class T>(T*) {
    T* out = rows<T>(attended_, part) + std::int64_t{looking.first} * attended_.size(1);
    general_attention_.run(layer, row(looking.first), places + looking.position, looking.count,
                           task.pages, heads(), rule, kv, out, task.watch);
  });
}

Reader::Window Reader::window(const RowProduct& product, const Part& part, ReadRows wanted) const {
  Window out{0, part.grids * kGridRows};
  for (std::int64_t half = out.count / 2; half >= RowProduct::kFewest; half /= 2) {
    const std::int64_t first = wanted.first / half;
    if (first != (wanted.first + wanted.count - 1) / half) break;
    if (product.has(half)) out = {first * half, half};
  }
  return out;
}

void Reader::gate(const at::Tensor& weights, const Part& part, ReadRows wanted) {
  const RowProduct& product = products_[2];
  const Window some = window(product, part, wanted);
  std::int64_t at_once = std::min<std::int64_t>(some.count, kGateRows);
  while (!product.has(at_once)) at_once /= 2;
  for (std::int64_t at = some.first; at < some.first + some.count; at += at_once) {
    const std::int64_t first = part.grid * kGridRows + at;
    product.run(weights, normed_.select(0, first).data_ptr(), at_once, gate_up_.data_ptr());
    const int begin = std::max(wanted.first - static_cast<int>(at), 0);
    const int end =
        std::min(wanted.first + wanted.count - static_cast<int>(at), static_cast<int>(at_once));
    check(gate_rows(data<std::uint16_t>(gate_up_), {begin, end - begin, 0}, sizes_.ffn_width,
                    data<std::uint16_t>(gated_.select(0, first)), stream(), fp16()));
  }
}

void Reader::read_part(int layer, const Part& part, ReadRows wanted,
                       const std::array<at::Tensor, 4>& weights, const at::Tensor& next_norm,
                       const Task& task) {
  const auto product = [&](std::size_t which, const at::Tensor& to, const at::Tensor& from,
                           const ReadRows& rows_wanted) {
    const Window some = window(products_[which], part, rows_wanted);
    const std::int64_t first = part.grid * kGridRows + some.first;
    products_[which].run(weights[which], from.select(0, first).data_ptr(), some.count,
                         to.select(0, first).data_ptr());
  };
  const auto norm = [&](const at::Tensor& weight) {
    check(norm_rows(rows<float>(residual_, part), wanted, sizes_.width, data<float>(weight),
                    sizes_.rms_epsilon, rows<std::uint16_t>(normed_, part), stream(), fp16()));
  };
  product(0, qkv_, normed_, part.rows);
  attend(layer, part, wanted, task);
  if (wanted.count == 0) return;
  product(1, residual_, attended_, wanted);
  norm(weights_.layers[static_cast<std::size_t>(layer)].ffn_norm);
  gate(weights[2], part, wanted);
  product(3, residual_, gated_, wanted);
  norm(next_norm);
}

void Reader::read_layer(int layer, std::span<const Part> parts, bool logits, const Task& task) {
  const auto index = static_cast<std::size_t>(layer);
  const LayerWeights& w = weights_.layers[index];
  const bool last = index + 1 == weights_.layers.size();
  const std::array<at::Tensor, 4> weights{dense(w.qkv, 0), dense(w.out, 1), dense(w.gate_up, 2),
                                          dense(w.down, 3)};
  for (const Part& part : parts) {
    // Of the last layer's results only the newest row's are looked at, if any.
    ReadRows wanted = part.rows;
    if (last) {
      wanted.first += wanted.count - 1;
      wanted.position += wanted.count - 1;
      wanted.count = logits && &part == &parts.back() ? 1 : 0;
    }
    read_part(layer, part, wanted, weights,
              last ? weights_.output_norm : weights_.layers[index + 1].attn_norm, task);
  }
}

void Reader::read(const DeviceSequence& sequence, std::span<const TokenId> tokens,
                  std::span<float> logits, const Watch* watch) {
  const std::vector<Part> parts = parts_of(sequence.next_pos(), static_cast<int>(tokens.size()));
  const Uploaded uploaded = upload(sequence, tokens);
  const int end = sequence.next_pos() + static_cast<int>(tokens.size());
  const bool weighed = watch != nullptr && watch->weights != nullptr;
  const Task task{uploaded, weighed || sequence.pruned(), sequence.next_pos(),
                  (end + kPageTokens - 1) / kPageTokens, watch};
  const std::int32_t* ids = uploaded.tokens;
  for (const Part& part : parts) {
    check(begin_rows(weights_.embedding.data_ptr(), ids, part.rows, sizes_.width,
                     data<float>(weights_.layers.front().attn_norm), sizes_.rms_epsilon,
                     rows<float>(residual_, part), rows<std::uint16_t>(normed_, part), stream(),
                     fp16()));
    ids += part.rows.count;
  }
  for (int layer = 0; layer < sizes_.layers; ++layer) {
    read_layer(layer, parts, !logits.empty(), task);
  }
  if (!logits.empty()) {
    const ReadRows& newest = parts.back().rows;
    const float* row = rows<float>(residual_, parts.back()) +
                       std::int64_t{newest.first + newest.count - 1} * sizes_.width;
    const NormRows normed_row{last_x_.data_ptr(), data<float>(last_squares_)};
    check(last_row(row, sizes_.width, data<float>(weights_.output_norm), normed_row, stream(),
                   fp16()));
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

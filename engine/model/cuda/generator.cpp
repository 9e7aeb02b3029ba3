#include "engine/model/cuda/generator.h"

#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <bit>
#include <cstring>

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

DecodeWeights decode_weights(const LlamaSizes& sizes, const Weights& weights) {
  DecodeWeights out{sizes,
                    data<__nv_bfloat16>(weights.embedding),
                    data<float>(weights.output_norm),
                    data<float>(weights.frequencies),
                    weights.output.matrix,
                    {}};
  for (const LayerWeights& layer : weights.layers) {
    out.layers.push_back({data<float>(layer.attn_norm), layer.qkv.matrix, layer.out.matrix,
                          data<float>(layer.ffn_norm), layer.gate_up.matrix, layer.down.matrix});
  }
  return out;
}

// A few sizes only, so that a growing history seldom needs a new recording.
std::size_t rounded_up(std::size_t count) {
  const std::size_t step = std::max<std::size_t>(4, std::bit_floor(count) / 4);
  return (count + step - 1) / step * step;
}

}  // namespace

Generator::Generator(const LlamaSizes& s, const Weights& weights, at::Device device)
    : device_(device), weights_(decode_weights(s, weights)) {
  const auto fp32 = [&](std::int64_t a_row) {
    return data<float>(make(kMaxBatch * a_row, at::kFloat));
  };
  const auto bf16 = [&](std::int64_t a_row) {
    return data<__nv_bfloat16>(make(kMaxBatch * a_row, at::kBFloat16));
  };
  buffers_ = {.residual = fp32(s.width),
              .normed = {bf16(s.width), fp32(s.width / kTileOutputs)},
              .qkv = fp32(std::int64_t{s.heads + 2 * s.kv_heads} * s.head_width),
              .turns = reinterpret_cast<float2*>(fp32(s.head_width)),
              .attended = bf16(std::int64_t{s.heads} * s.head_width),
              .gated = bf16(s.ffn_width),
              .logits = fp32(s.vocab)};
}

at::Tensor Generator::make(std::int64_t count, at::ScalarType type) {
  owned_.push_back(at::zeros({count}, at::TensorOptions().dtype(type).device(device_)));
  return owned_.back();
}

void Generator::make_room(at::Tensor& buffer, std::int64_t bytes) {
  if (buffer.defined() && buffer.numel() >= bytes) return;
  graphs_.clear();
  buffer = at::Tensor();  // given back first: the two need not fit side by side
  const auto size = static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(bytes)));
  buffer = at::empty({size}, at::TensorOptions().dtype(at::kByte).device(device_));
}

Generator::Plan Generator::plan(std::span<const Forward::Row> rows) {
  Plan out;
  for (const Forward::Row& row : rows) {
    const Position position = row.sequence->next_pos();
    out.places.push_back({position, static_cast<std::int32_t>(out.addresses.size())});
    const int pages = position / kPageTokens + 1;
    out.pages = std::max(out.pages, pages);
    for (int i = 0; i < pages; ++i) out.addresses.push_back(row.sequence->page_address(i));
  }
  std::vector<PageWork> here;  // of one page index
  for (int page = 0; page < out.pages; ++page) {
    here.clear();
    const auto address = [&](std::size_t row) {
      return out.addresses[static_cast<std::size_t>(out.places[row].first_page + page)];
    };
    for (std::size_t r = 0; r < rows.size(); ++r) {
      const Position position = out.places[r].position;
      if (position / kPageTokens < page) continue;
      // A row's last page is its own: it was copied before it is written.
      const bool whole = (page + 1) * kPageTokens <= position;
      const auto known = std::ranges::find_if(here, [&](const PageWork& work) {
        return whole &&
               address(static_cast<std::size_t>(std::countr_zero(work.rows))) == address(r);
      });
      if (known == here.end()) {
        here.push_back({page, 1U << r});
      } else {
        known->rows |= 1U << r;
      }
    }
    for (const PageWork& work : here) {
      (std::has_single_bit(work.rows) ? out.single : out.shared).push_back(work);
    }
  }
  return out;
}

// places, tokens, work and addresses in one copy, each at the same place in every step of a shape.
void Generator::upload(std::span<const Forward::Row> rows, const Plan& plan) {
  constexpr std::size_t tokens_at = kMaxBatch * sizeof(RowPlace);
  constexpr std::size_t work_at = tokens_at + kMaxBatch * sizeof(TokenId);
  const std::size_t shared = plan.shared.empty() ? 0 : rounded_up(plan.shared.size());
  const std::size_t single = rounded_up(plan.single.size());
  const std::size_t single_at = work_at + shared * sizeof(PageWork);
  const std::size_t addresses_at = single_at + single * sizeof(PageWork);
  const std::size_t bytes = addresses_at + plan.addresses.size() * sizeof(void*);
  std::byte* host = to_device_.room(bytes);
  if (host == nullptr) throw ForwardError(cudaErrorMemoryAllocation);
  std::memset(host, 0, addresses_at);
  std::memcpy(host, plan.places.data(), plan.places.size() * sizeof(RowPlace));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::memcpy(host + tokens_at + i * sizeof(TokenId), &rows[i].token, sizeof(TokenId));
  }
  std::memcpy(host + work_at, plan.shared.data(), plan.shared.size() * sizeof(PageWork));
  std::memcpy(host + single_at, plan.single.data(), plan.single.size() * sizeof(PageWork));
  std::memcpy(host + addresses_at, plan.addresses.data(), plan.addresses.size() * sizeof(void*));

  make_room(uploaded_, static_cast<std::int64_t>(bytes));
  auto* device = data<std::byte>(uploaded_);
  check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream()));
  step_ = {reinterpret_cast<const RowPlace*>(device),
           reinterpret_cast<const std::int32_t*>(device + tokens_at),
           static_cast<int>(rows.size())};
  history_.work = reinterpret_cast<const PageWork*>(device + work_at);
  history_.room = {static_cast<int>(shared), static_cast<int>(single)};
  history_.pages = reinterpret_cast<void* const*>(device + addresses_at);
}

void Generator::generate(std::span<const Forward::Row> rows) {
  const LlamaSizes& s = weights_.sizes;
  const Plan planned = plan(rows);
  upload(rows, planned);

  const int pages = static_cast<int>(rounded_up(static_cast<std::size_t>(planned.pages)));
  const HeadShape shape{s.heads, s.kv_heads, s.head_width};
  const std::size_t floats = attention_scratch_floats(step_.rows, shape, pages);
  make_room(scratch_, static_cast<std::int64_t>(floats * sizeof(float)));
  auto* sums = data<float2>(scratch_);
  history_.scratch = {reinterpret_cast<float*>(sums + std::int64_t{step_.rows} * s.heads * pages),
                      sums, pages};

  const StepGraphs::Key key{step_.rows, history_.room.shared, history_.room.single, pages};
  check(graphs_.run(key, stream(),
                    [&] { check(launch_step(weights_, buffers_, step_, history_, stream())); }));
  const auto vocab = static_cast<std::size_t>(s.vocab);
  const std::size_t bytes = rows.size() * vocab * sizeof(float);
  std::byte* logits = from_device_.room(bytes);
  if (logits == nullptr) throw ForwardError(cudaErrorMemoryAllocation);
  check(cudaMemcpyAsync(logits, buffers_.logits, bytes, cudaMemcpyDeviceToHost, stream()));
  check(cudaStreamSynchronize(stream()));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::memcpy(rows[i].logits.data(), logits + i * vocab * sizeof(float), vocab * sizeof(float));
  }
}

}  // namespace kvfs::model::cuda

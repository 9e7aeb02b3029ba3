// What whoever computes with an Architecture trusts: every slice lies within its tensor, every
// tensor has the bytes that its shape says.
#pragma once

#include "engine/model/architecture.h"
#include "engine/model/dequantize.h"

namespace kvfs::fuzz {

inline void check(const model::Linear& linear) {
  for (const model::Slice& slice : linear.weight) {
    if (slice.first < 0 || slice.rows <= 0 || linear.inputs <= 0) __builtin_trap();
    const auto end =
        static_cast<std::uint64_t>(slice.first) + static_cast<std::uint64_t>(slice.rows);
    std::uint64_t elements = 1;
    for (const std::uint64_t dim : slice.tensor->dims) elements *= dim;
    if (end * static_cast<std::uint64_t>(linear.inputs) > elements) __builtin_trap();
    if (slice.tensor->bytes.empty()) __builtin_trap();
  }
}

inline void check(const model::Norm& norm) {
  if (norm.kind == model::Norm::Kind::kNone) return;
  if (norm.length <= 0 || !norm.weight) __builtin_trap();
  if (norm.weight->dims.at(0) != static_cast<std::uint64_t>(norm.length)) __builtin_trap();
}

inline void check(const model::Architecture& a) {
  if (a.layers.empty() || a.vocab <= 0 || !a.embedding || a.heads % a.kv_heads != 0) {
    __builtin_trap();
  }
  for (const model::Layer& layer : a.layers) {
    if (layer.rope && static_cast<std::size_t>(*layer.rope) >= a.ropes.size()) __builtin_trap();
    for (const model::Norm* norm : {&layer.attn_norm, &layer.q_norm, &layer.k_norm,
                                    &layer.attn_post, &layer.ffn_norm, &layer.ffn_post}) {
      check(*norm);
    }
    check(layer.qkv);
    check(layer.attn_out);
    check(layer.router);
    if (layer.experts.empty()) __builtin_trap();
    for (const model::FeedForward& expert : layer.experts) {
      check(expert.up);
      check(expert.down);
    }
  }
  check(a.output_norm);
  check(a.output);
}

}  // namespace kvfs::fuzz

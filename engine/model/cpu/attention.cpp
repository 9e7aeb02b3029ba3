#include "engine/model/cpu/attention.h"

#include <algorithm>

namespace kvfs::model::cpu {

namespace {
int last_page(const RowRun& run) { return run.first_pos / kPage; }
}  // namespace

Attention::Attention(const Kernels& kernels, int heads, const PageShape& shape, int threads)
    : kernels_(kernels), heads_(heads), group_(heads / shape.kv_heads), shape_(shape) {
  for (int i = 0; i < threads; ++i) {
    scores_.emplace_back(static_cast<std::size_t>(kAttendPositions * group_ * kPage));
    whole_.push_back(make_partial());
    page_.push_back(make_partial());
  }
}

Attention::Partial Attention::make_partial() const {
  const auto rows = static_cast<std::size_t>(kAttendPositions * group_);
  return {std::vector<float>(rows), std::vector<float>(rows),
          std::vector<float>(rows * static_cast<std::size_t>(shape_.width))};
}

void Attention::attend(int layer, const std::vector<RowRun>& runs, const float* queries,
                       std::size_t stride, float* out, ForkJoin& pool) {
  const auto units = static_cast<int>(runs.size()) * shape_.kv_heads;
  if (units < 8 * pool.threads())
    attend_split(layer, runs, queries, stride, out, pool);
  else
    attend_whole(layer, runs, queries, stride, out, pool);
}

void Attention::attend_page(int layer, const RowRun& run, int kv_head, int page,
                            const float* queries, std::size_t stride, float* scores,
                            Partial& to) const {
  const Page& at = run.sequence->page(page);
  const AttendPage task{
      .queries = queries + static_cast<std::size_t>(run.first_row) * stride +
                 static_cast<std::size_t>(kv_head * group_ * shape_.width),
      .query_stride = stride,
      .positions = run.count,
      .heads = group_,
      .width = shape_.width,
      .keys = at.keys(layer, kv_head),
      .values = at.values(layer, kv_head),
      .first_valid = page < last_page(run) ? kPage : run.first_pos % kPage + 1,
      .scores = scores,
      .maxima = to.maxima.data(),
      .sums = to.sums.data(),
      .outputs = to.outputs.data(),
  };
  if (shape_.dtype == DType::kF32)
    kernels_.attend_f32(task);
  else
    kernels_.attend_bf16(task);
}

void Attention::merge(const RowRun& run, Partial& into, const Partial& page) const {
  for (int row = 0; row < run.count * group_; ++row) {
    const auto i = static_cast<std::size_t>(row);
    const std::size_t at = i * static_cast<std::size_t>(shape_.width);
    kernels_.merge(into.maxima[i], into.sums[i], &into.outputs[at], page.maxima[i], page.sums[i],
                   &page.outputs[at], shape_.width);
  }
}

void Attention::finish(const RowRun& run, int kv_head, const Partial& from, float* out) const {
  const auto width = static_cast<std::size_t>(shape_.width);
  for (int p = 0; p < run.count; ++p) {
    for (int g = 0; g < group_; ++g) {
      const auto i = static_cast<std::size_t>(p * group_ + g);
      const auto to = static_cast<std::size_t>((run.first_row + p) * heads_ + kv_head * group_ + g);
      kernels_.divide(&from.outputs[i * width], from.sums[i], shape_.width, out + to * width);
    }
  }
}

void Attention::attend_whole(int layer, const std::vector<RowRun>& runs, const float* queries,
                             std::size_t stride, float* out, ForkJoin& pool) {
  const int units = static_cast<int>(runs.size()) * shape_.kv_heads;
  pool.for_each(units, [&](int unit, int thread) {
    const auto t = static_cast<std::size_t>(thread);
    // A head's runs one after the other: its pages stay in the cache.
    const auto count = static_cast<int>(runs.size());
    const RowRun& run = runs[static_cast<std::size_t>(unit % count)];
    const int kv_head = unit / count;
    attend_page(layer, run, kv_head, 0, queries, stride, scores_[t].data(), whole_[t]);
    for (int page = 1; page <= last_page(run); ++page) {
      attend_page(layer, run, kv_head, page, queries, stride, scores_[t].data(), page_[t]);
      merge(run, whole_[t], page_[t]);
    }
    finish(run, kv_head, whole_[t], out);
  });
}

void Attention::attend_split(int layer, const std::vector<RowRun>& runs, const float* queries,
                             std::size_t stride, float* out, ForkJoin& pool) {
  struct Unit {
    std::size_t run;
    int kv_head;
    int page;
  };
  std::vector<Unit> units;
  for (std::size_t r = 0; r < runs.size(); ++r) {
    for (int head = 0; head < shape_.kv_heads; ++head) {
      for (int page = 0; page <= last_page(runs[r]); ++page) units.push_back({r, head, page});
    }
  }
  while (split_.size() < units.size()) split_.push_back(make_partial());
  pool.for_each(static_cast<int>(units.size()), [&](int unit, int thread) {
    const Unit& u = units[static_cast<std::size_t>(unit)];
    attend_page(layer, runs[u.run], u.kv_head, u.page, queries, stride,
                scores_[static_cast<std::size_t>(thread)].data(),
                split_[static_cast<std::size_t>(unit)]);
  });
  for (std::size_t i = 0; i < units.size();) {
    const RowRun& run = runs[units[i].run];
    const int pages = last_page(run) + 1;
    for (int page = 1; page < pages; ++page)
      merge(run, split_[i], split_[i + static_cast<std::size_t>(page)]);
    finish(run, units[i].kv_head, split_[i], out);
    i += static_cast<std::size_t>(pages);
  }
}

}  // namespace kvfs::model::cpu

#include "engine/model/cpu/attention.h"

#include <algorithm>

namespace kvfs::model::cpu {

namespace {
int last_page(const RowRun& run) { return run.first_pos / kPage; }
// The first page that any row of the run looks at. What a page outside of a row's window gives is
// nothing, exactly, so that a row's bits do not depend on the run it is in.
int first_page(const RowRun& run, const AttentionRule& rule) {
  return rule.window > 0 ? std::max(0, run.first_pos - rule.window + 1) / kPage : 0;
}
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

void Attention::attend(int layer, const AttentionRule& rule, const std::vector<RowRun>& runs,
                       const float* queries, std::size_t stride, float* out, ForkJoin& pool) {
  const Task task{layer, rule, queries, stride};
  const auto units = static_cast<int>(runs.size()) * shape_.kv_heads;
  if (units < 8 * pool.threads())
    attend_split(task, runs, out, pool);
  else
    attend_whole(task, runs, out, pool);
}

void Attention::attend_page(const Task& task, const RowRun& run, int kv_head, int page,
                            float* scores, Partial& to) const {
  const Page& at = run.sequence->page(page);
  const int before = page * kPage;
  const AttendPage attend{
      .queries = task.queries + static_cast<std::size_t>(run.first_row) * task.stride +
                 static_cast<std::size_t>(kv_head * group_ * shape_.width),
      .query_stride = task.stride,
      .positions = run.count,
      .heads = group_,
      .width = shape_.width,
      .keys = at.keys(task.layer, kv_head),
      .values = at.values(task.layer, kv_head),
      .first_valid = page < last_page(run) ? kPage : run.first_pos % kPage + 1,
      .first_seen =
          task.rule.window > 0 ? run.first_pos - task.rule.window + 1 - before : -kAttendPositions,
      .soft_cap = task.rule.soft_cap,
      .scores = scores,
      .maxima = to.maxima.data(),
      .sums = to.sums.data(),
      .outputs = to.outputs.data(),
  };
  if (shape_.dtype == DType::kF32)
    kernels_.attend_f32(attend);
  else
    kernels_.attend_bf16(attend);
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

void Attention::attend_whole(const Task& task, const std::vector<RowRun>& runs, float* out,
                             ForkJoin& pool) {
  const int units = static_cast<int>(runs.size()) * shape_.kv_heads;
  pool.for_each(units, [&](int unit, int thread) {
    const auto t = static_cast<std::size_t>(thread);
    // A head's runs one after the other: its pages stay in the cache.
    const auto count = static_cast<int>(runs.size());
    const RowRun& run = runs[static_cast<std::size_t>(unit % count)];
    const int kv_head = unit / count;
    const int first = first_page(run, task.rule);
    attend_page(task, run, kv_head, first, scores_[t].data(), whole_[t]);
    for (int page = first + 1; page <= last_page(run); ++page) {
      attend_page(task, run, kv_head, page, scores_[t].data(), page_[t]);
      merge(run, whole_[t], page_[t]);
    }
    finish(run, kv_head, whole_[t], out);
  });
}

void Attention::attend_split(const Task& task, const std::vector<RowRun>& runs, float* out,
                             ForkJoin& pool) {
  struct Unit {
    std::size_t run;
    int kv_head;
    int page;
  };
  std::vector<Unit> units;
  for (std::size_t r = 0; r < runs.size(); ++r) {
    for (int head = 0; head < shape_.kv_heads; ++head) {
      for (int page = first_page(runs[r], task.rule); page <= last_page(runs[r]); ++page)
        units.push_back({r, head, page});
    }
  }
  while (split_.size() < units.size()) split_.push_back(make_partial());
  pool.for_each(static_cast<int>(units.size()), [&](int unit, int thread) {
    const Unit& u = units[static_cast<std::size_t>(unit)];
    attend_page(task, runs[u.run], u.kv_head, u.page,
                scores_[static_cast<std::size_t>(thread)].data(),
                split_[static_cast<std::size_t>(unit)]);
  });
  for (std::size_t i = 0; i < units.size();) {
    const RowRun& run = runs[units[i].run];
    const int pages = last_page(run) - first_page(run, task.rule) + 1;
    for (int page = 1; page < pages; ++page)
      merge(run, split_[i], split_[i + static_cast<std::size_t>(page)]);
    finish(run, units[i].kv_head, split_[i], out);
    i += static_cast<std::size_t>(pages);
  }
}

}  // namespace kvfs::model::cpu

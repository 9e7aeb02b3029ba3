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
bool is_watched(const RowRun& run) {
  return run.watch != nullptr && run.watch->fold != Watch::Fold::kNothing;
}
// How many runs from runs[first] on look at the page as one run of as many rows would: branches of
// one parent, each with one row that sees the whole page.
int together(const std::vector<RowRun>& runs, std::size_t first, int page,
             const AttentionRule& rule) {
  const auto sees_all = [&](const RowRun& run) { return run.count == 1 && page < last_page(run); };
  std::size_t end = first + 1;
  if (rule.window > 0 || !sees_all(runs[first])) return 1;
  const Page& shared = runs[first].sequence->page(page);
  while (end < runs.size() && end < first + kAttendPositions && sees_all(runs[end]) &&
         &runs[end].sequence->page(page) == &shared) {
    ++end;
  }
  return static_cast<int>(end - first);
}
}  // namespace

Attention::Attention(const Kernels& kernels, int heads, const PageShape& shape, int threads)
    : kernels_(kernels), heads_(heads), group_(heads / shape.kv_heads), shape_(shape) {
  for (int i = 0; i < threads; ++i) {
    scores_.emplace_back(static_cast<std::size_t>(kAttendPositions * group_ * kAttendScores));
    for (std::vector<Partial>* partials : {&whole_, &page_})
      partials->emplace_back().fit(kAttendPositions * group_, shape_.width);
  }
}

void Attention::Partial::fit(int rows, int width) {
  const auto count = static_cast<std::size_t>(rows);
  if (count <= maxima.size()) return;
  maxima.resize(count);
  sums.resize(count);
  outputs.resize(count * static_cast<std::size_t>(width));
}

Attention::PartialRows Attention::Partial::from(int row, int width) {
  return {&maxima[static_cast<std::size_t>(row)], &sums[static_cast<std::size_t>(row)],
          &outputs[static_cast<std::size_t>(row * width)]};
}

void Attention::Kept::fit(int rows) {
  const auto count = static_cast<std::size_t>(rows);
  if (count <= sums.size()) return;
  scores.resize(count * kAttendScores);
  sums.resize(count);
  factors.resize(count);
}

Attention::KeptRows Attention::Kept::from(int row) {
  const auto at = static_cast<std::size_t>(row);
  return {&scores[at * kAttendScores], &sums[at], &factors[at]};
}

void Attention::attend(int layer, const AttentionRule& rule, const std::vector<RowRun>& runs,
                       const float* queries, std::size_t stride, float* out, ForkJoin& pool) {
  const Task task{layer, rule, queries, stride};
  bool watched = false;
  for (const RowRun& run : runs) {
    if (!is_watched(run)) continue;
    watched = true;
    prepare_watch(task, run);
  }
  const bool generated =
      std::ranges::all_of(runs, [](const RowRun& run) { return run.count == 1; });
  const auto units = static_cast<int>(runs.size()) * shape_.kv_heads;
  if (generated || units < 8 * pool.threads()) {
    attend_split(task, runs, out, pool);
  } else if (watched) {  // run by run: what is kept of their scores stays in the cache
    for (const RowRun& run : runs) attend_split(task, {run}, out, pool);
  } else {
    attend_whole(task, runs, out, pool);
  }
}

void Attention::attend_page(const Task& task, const RowRun& run, int kv_head, int page,
                            float* scores, PartialRows to) const {
  if (run.count > 1 && task.rule.window > 0 && run.sequence->page(page).sparse()) {
    // Neighbouring positions' windows need not begin at neighbouring entries.
    for (int row = 0; row < run.count; ++row) {
      const int done = row * group_;
      attend_page(task, {run.sequence, run.first_row + row, 1, run.first_pos + row}, kv_head, page,
                  scores + static_cast<std::ptrdiff_t>(done) * kAttendScores,
                  {to.maxima + done, to.sums + done, to.outputs + done * shape_.width});
    }
    return;
  }
  AttendPage attend = page_task(task, run, kv_head, page);
  attend.scores = scores;
  attend.maxima = to.maxima;
  attend.sums = to.sums;
  attend.outputs = to.outputs;
  run_kernel(attend);
}

AttendPage Attention::page_task(const Task& task, const RowRun& run, int kv_head, int page) const {
  const Page& at = run.sequence->page(page);
  const int before = page * kPage;
  const Page::Head head = at.head(task.layer, kv_head);
  const int skipped = head.first / kPanel * kPanel;  // slots of the store, in whole tiles
  const int first = head.first - skipped;
  const auto bytes = static_cast<std::size_t>(skipped) * size_of(shape_.dtype);
  const auto slot_of = [&](Position pos) {
    return first + at.before(task.layer, kv_head, pos - before);
  };
  int first_seen = -kAttendPositions;
  if (task.rule.window > 0) {
    const Position oldest = run.first_pos - task.rule.window + 1;
    first_seen = at.sparse() ? slot_of(oldest) : oldest - before;
  }
  return {
      .queries = task.queries + static_cast<std::size_t>(run.first_row) * task.stride +
                 static_cast<std::size_t>(kv_head * group_ * shape_.width),
      .query_stride = task.stride,
      .positions = run.count,
      .heads = group_,
      .width = shape_.width,
      .keys = head.memory.keys + bytes * static_cast<std::size_t>(shape_.width),
      .values = head.memory.values + bytes * kPanel,
      .value_stride = head.memory.stride,
      .first_slot = first,
      .slots = first + head.count,
      .first_valid = page < last_page(run) ? first + head.count : slot_of(run.first_pos + 1),
      .first_seen = first_seen,
      .soft_cap = task.rule.soft_cap,
      .scores = nullptr,
      .maxima = nullptr,
      .sums = nullptr,
      .outputs = nullptr,
  };
}

void Attention::run_kernel(const AttendPage& task) const {
  if (shape_.dtype == DType::kF32)
    kernels_.attend_f32(task);
  else
    kernels_.attend_bf16(task);
}

void Attention::merge(const RowRun& run, PartialRows into, PartialRows page) const {
  for (int row = 0; row < run.count * group_; ++row) {
    const auto i = static_cast<std::size_t>(row);
    const std::size_t at = i * static_cast<std::size_t>(shape_.width);
    kernels_.merge(into.maxima[i], into.sums[i], &into.outputs[at], page.maxima[i], page.sums[i],
                   &page.outputs[at], shape_.width);
  }
}

void Attention::finish(const RowRun& run, int kv_head, PartialRows from, float* out) const {
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
    const PartialRows whole = whole_[t].from(0, shape_.width);
    const PartialRows part = page_[t].from(0, shape_.width);
    attend_page(task, run, kv_head, first, scores_[t].data(), whole);
    for (int page = first + 1; page <= last_page(run); ++page) {
      attend_page(task, run, kv_head, page, scores_[t].data(), part);
      merge(run, whole, part);
    }
    finish(run, kv_head, whole, out);
  });
}

void Attention::attend_split(const Task& task, const std::vector<RowRun>& runs, float* out,
                             ForkJoin& pool) {
  int first = last_page(runs[0]);
  int last = 0;
  for (const RowRun& run : runs) {
    first = std::min(first, first_page(run, task.rule));
    last = std::max(last, last_page(run));
  }
  const int pages = last - first + 1;
  const auto units = static_cast<std::size_t>(shape_.kv_heads * pages);
  const int rows = (runs.back().first_row + runs.back().count - runs[0].first_row) * group_;
  const bool watched = std::ranges::any_of(runs, is_watched);
  if (split_.size() < units) split_.resize(units);
  if (watched && kept_.size() < units) kept_.resize(units);
  const auto unit_of = [&](int kv_head, int page) {
    return static_cast<std::size_t>(kv_head * pages + page - first);
  };
  const auto row_of = [&](const RowRun& run) {
    return (run.first_row - runs[0].first_row) * group_;
  };
  const auto part = [&](const RowRun& run, int kv_head, int page) {
    return split_[unit_of(kv_head, page)].from(row_of(run), shape_.width);
  };
  const auto kept = [&](const RowRun& run, int kv_head, int page) {
    return kept_[unit_of(kv_head, page)].from(row_of(run));
  };
  const auto looks_at = [&](const RowRun& run, int page) {
    return page >= first_page(run, task.rule) && page <= last_page(run);
  };
  // A page's runs one after the other: branches of one parent share it, and find it in the cache.
  // The newest pages, which are not full, come last: who is done early finds little left.
  pool.for_each(shape_.kv_heads * pages, [&](int index, int thread) {
    const int kv_head = index % shape_.kv_heads;
    const int page = first + index / shape_.kv_heads;
    const std::size_t unit = unit_of(kv_head, page);
    split_[unit].fit(rows, shape_.width);
    if (watched) kept_[unit].fit(rows);
    for (std::size_t r = 0; r < runs.size();) {
      RowRun run = runs[r];
      if (!looks_at(run, page)) {
        ++r;
        continue;
      }
      const int shared = together(runs, r, page, task.rule);
      if (shared > 1) run.count = shared;
      attend_page(task, run, kv_head, page,
                  watched ? kept(run, kv_head, page).scores
                          : scores_[static_cast<std::size_t>(thread)].data(),
                  part(run, kv_head, page));
      r += static_cast<std::size_t>(shared);
    }
    for (const RowRun& run : runs) {
      if (is_watched(run) && looks_at(run, page)) {
        sum_watched(task, run, kv_head, page, part(run, kv_head, page).sums,
                    kept(run, kv_head, page));
      }
    }
  });
  const auto count = static_cast<int>(runs.size());
  pool.for_each(count * shape_.kv_heads, [&](int unit, int) {
    const RowRun& run = runs[static_cast<std::size_t>(unit / shape_.kv_heads)];
    const int kv_head = unit % shape_.kv_heads;
    const int begin = first_page(run, task.rule);
    if (is_watched(run)) {
      std::vector<PartialRows> parts;
      std::vector<KeptRows> of_pages;
      for (int page = begin; page <= last_page(run); ++page) {
        parts.push_back(part(run, kv_head, page));
        of_pages.push_back(kept(run, kv_head, page));
      }
      find_factors(parts, of_pages, run.count * group_);
    }
    const PartialRows whole = part(run, kv_head, begin);
    for (int page = begin + 1; page <= last_page(run); ++page)
      merge(run, whole, part(run, kv_head, page));
    finish(run, kv_head, whole, out);
  });
  if (!watched) return;
  pool.for_each(shape_.kv_heads * pages, [&](int unit, int) {
    const int kv_head = unit / pages;
    const int page = first + unit % pages;
    for (const RowRun& run : runs) {
      if (is_watched(run) && looks_at(run, page))
        fold_watched(task, run, kv_head, page, kept(run, kv_head, page));
    }
  });
}

}  // namespace kvfs::model::cpu

// The softmax weights themselves, which attention has page by page, each as e^(score − the page's
// maximum): once all pages of a row are known, a factor a page makes weights of them.
#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/model/cpu/attention.h"
#include "engine/prune/methods.h"

namespace kvfs::model::cpu {
namespace {

// Positions that a watch's softmax is over, as up to three ranges.
std::vector<std::pair<Position, Position>> ranges_of(const Watch& watch) {
  constexpr Position kAll = std::numeric_limits<Position>::max();
  if (watch.fold == Watch::Fold::kSum) return {{0, kAll}};
  return {{0, std::min(prune::kSinks, watch.begin)}, {watch.begin, watch.end}, {watch.after, kAll}};
}

}  // namespace

void Attention::prepare_watch(const Task& task, const RowRun& run) const {
  prune::HeadScores& to = run.watch->weights[static_cast<std::size_t>(task.layer)];
  const int last = run.first_pos / kPage;
  for (int head = 0; head < shape_.kv_heads; ++head) {
    const auto here =
        run.sequence->page(last).before(task.layer, head, run.first_pos + run.count - last * kPage);
    const std::size_t entries =
        entries_before(task, run, head, last) + static_cast<std::size_t>(here);
    for (int g = 0; g < group_; ++g) {
      std::vector<float>& weights = to[static_cast<std::size_t>(head * group_ + g)];
      weights.resize(std::max(weights.size(), entries));
    }
  }
}

std::size_t Attention::entries_before(const Task& task, const RowRun& run, int kv_head, int page) {
  std::size_t entries = 0;
  for (int before = 0; before < page; ++before)
    entries += static_cast<std::size_t>(run.sequence->page(before).head(task.layer, kv_head).count);
  return entries;
}

// Calls each(row, group's head, slots begin … end) for what the run's rows see of these positions.
template <class Each>
void Attention::for_seen(const Task& task, const RowRun& run, int kv_head, int page,
                         std::pair<Position, Position> positions, Each each) const {
  const Page& at = run.sequence->page(page);
  const Position before = page * kPage;
  for (int i = 0; i < run.count; ++i) {
    const RowRun row{run.sequence, run.first_row + i, 1, run.first_pos + i, run.watch};
    const AttendPage attend = page_task(task, row, kv_head, page);
    const auto slot_of = [&](Position pos) {
      const Position in_page = std::clamp(pos, before, before + kPage) - before;
      return attend.first_slot + at.before(task.layer, kv_head, in_page);
    };
    const int begin = std::max(std::clamp(attend.first_seen, attend.first_slot, attend.slots),
                               slot_of(positions.first));
    const int end = std::min({attend.slots, attend.first_valid, slot_of(positions.second)});
    if (begin >= end) continue;
    for (int g = 0; g < group_; ++g) each(i * group_ + g, g, attend.first_slot, begin, end);
  }
}

// The sums, of the page's share, that the watch's softmax divides by.
void Attention::sum_watched(const Task& task, const RowRun& run, int kv_head, int page,
                            const float* sums, KeptRows kept) const {
  const auto rows = static_cast<std::size_t>(run.count * group_);
  if (run.watch->fold == Watch::Fold::kSum) {
    std::copy_n(sums, rows, kept.sums);
    return;
  }
  std::fill_n(kept.sums, rows, 0.0F);
  for (const auto& range : ranges_of(*run.watch)) {
    for_seen(task, run, kv_head, page, range, [&](int row, int, int, int begin, int end) {
      const float* from = kept.scores + static_cast<std::ptrdiff_t>(row) * kAttendScores;
      float sum = 0;
      for (int slot = begin; slot < end; ++slot) sum += from[slot];
      kept.sums[row] += sum;
    });
  }
}

void Attention::find_factors(std::span<const PartialRows> parts, std::span<const KeptRows> pages,
                             int rows) {
  for (int row = 0; row < rows; ++row) {
    float top = kNothingSeen;
    for (std::size_t page = 0; page < pages.size(); ++page) {
      if (pages[page].sums[row] > 0) top = std::max(top, parts[page].maxima[row]);
    }
    float total = 0;
    for (std::size_t page = 0; page < pages.size(); ++page) {
      const bool counts = pages[page].sums[row] > 0;
      pages[page].factors[row] = counts ? std::exp(parts[page].maxima[row] - top) : 0.0F;
      total += pages[page].sums[row] * pages[page].factors[row];
    }
    for (const KeptRows& page : pages) {
      if (total > 0) page.factors[row] /= total;
    }
  }
}

void Attention::fold_watched(const Task& task, const RowRun& run, int kv_head, int page,
                             KeptRows kept) const {
  Watch& watch = *run.watch;
  const bool sum = watch.fold == Watch::Fold::kSum;
  const auto range = ranges_of(watch)[sum ? 0 : 1];
  prune::HeadScores& weights = watch.weights[static_cast<std::size_t>(task.layer)];
  const std::size_t entry = entries_before(task, run, kv_head, page);
  for_seen(task, run, kv_head, page, range,
           [&](int row, int g, int first_slot, int begin, int end) {
             const float* from = kept.scores + static_cast<std::ptrdiff_t>(row) * kAttendScores;
             const float factor = kept.factors[row];
             float* to = weights[static_cast<std::size_t>(kv_head * group_ + g)].data() + entry +
                         (begin - first_slot);
             const int count = end - begin;
             from += begin;
             if (sum) {
               for (int i = 0; i < count; ++i) to[i] += from[i] * factor;
             } else {
               for (int i = 0; i < count; ++i) to[i] = std::max(to[i], from[i] * factor);
             }
           });
}

}  // namespace kvfs::model::cpu

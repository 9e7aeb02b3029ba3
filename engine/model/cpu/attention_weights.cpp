// The softmax weights themselves, which attend() never has in one place.
#include <algorithm>
#include <cmath>

#include "engine/model/cpu/attention.h"

namespace kvfs::model::cpu {

void Attention::add_weights(int layer, const AttentionRule& rule, const std::vector<RowRun>& runs,
                            const float* queries, std::size_t stride, prune::HeadScores& to,
                            ForkJoin& pool) const {
  const Task task{layer, rule, queries, stride};
  pool.for_each(shape_.kv_heads, [&](int kv_head, int) {
    RowWeights row;
    for (const RowRun& run : runs) {
      for (int i = 0; i < run.count; ++i) {
        const RowRun one{run.sequence, run.first_row + i, 1, run.first_pos + i};
        weigh_row(task, one, kv_head, row);
        for (int g = 0; g < group_; ++g)
          add_row(row, g, to[static_cast<std::size_t>(kv_head * group_ + g)]);
      }
    }
  });
}

// Page by page e^(score − the page's maximum), with the entries that each page has before it.
void Attention::weigh_row(const Task& task, const RowRun& row, int kv_head, RowWeights& to) const {
  const auto group = static_cast<std::size_t>(group_);
  to.pages.clear();
  to.outputs.resize(group * static_cast<std::size_t>(shape_.width));
  std::size_t entries = 0;
  for (int page = 0; page <= row.first_pos / kPage; ++page) {
    AttendPage attend = page_task(task, row, kv_head, page);
    const int begin = std::clamp(attend.first_seen, attend.first_slot, attend.slots);
    const int end = std::min(attend.slots, attend.first_valid);
    const auto before = static_cast<std::size_t>(begin - attend.first_slot);
    const auto held = static_cast<std::size_t>(attend.slots - attend.first_slot);
    if (begin < end) {
      const std::size_t index = to.pages.size();
      to.pages.push_back({entries + before, begin, end});
      to.scores.resize(std::max(to.scores.size(), (index + 1) * group * kAttendScores));
      to.maxima.resize((index + 1) * group);
      to.sums.resize((index + 1) * group);
      attend.scores = &to.scores[index * group * kAttendScores];
      attend.maxima = &to.maxima[index * group];
      attend.sums = &to.sums[index * group];
      attend.outputs = to.outputs.data();
      run_kernel(attend);
    }
    entries += held;
  }
}

void Attention::add_row(const RowWeights& row, int query_head, std::vector<float>& to) const {
  const auto at = [&](std::size_t page) {
    return page * static_cast<std::size_t>(group_) + static_cast<std::size_t>(query_head);
  };
  float top = kNothingSeen;
  for (std::size_t page = 0; page < row.pages.size(); ++page)
    top = std::max(top, row.maxima[at(page)]);
  float total = 0;
  for (std::size_t page = 0; page < row.pages.size(); ++page)
    total += row.sums[at(page)] * std::exp(row.maxima[at(page)] - top);
  for (std::size_t page = 0; page < row.pages.size(); ++page) {
    const auto& [first_entry, begin, end] = row.pages[page];
    const float factor = std::exp(row.maxima[at(page)] - top) / total;
    const float* from = &row.scores[at(page) * kAttendScores];
    to.resize(std::max(to.size(), first_entry + static_cast<std::size_t>(end - begin)));
    for (int slot = begin; slot < end; ++slot)
      to[first_entry + static_cast<std::size_t>(slot - begin)] += from[slot] * factor;
  }
}

}  // namespace kvfs::model::cpu

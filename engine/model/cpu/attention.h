// Attention of a step's rows to their sequences' pages.
//
// Each row attends page by page, pages upwards, joined by log-sum-exp (FlashAttention's online
// softmax, arXiv 2205.14135, cut at fixed absolute positions): its bits depend on the keys before
// it alone. Prefill walks a row's pages in one go; decode, with few rows, gives each page to
// whichever thread is free and joins afterwards, in the same order.
#pragma once

#include <span>
#include <utility>
#include <vector>

#include "engine/model/cpu/fork_join.h"
#include "engine/model/cpu/kernels.h"
#include "engine/model/cpu/paged_sequence.h"
#include "engine/model/cpu/watch.h"

namespace kvfs::model::cpu {

// Rows of a step that follow each other in one sequence, all in one page.
struct RowRun {
  const PagedSequence* sequence;
  int first_row;  // in the step
  int count;      // at most kAttendPositions
  Position first_pos;
  Watch* watch = nullptr;  // of its weights
};

// What a layer's attention looks at.
struct AttentionRule {
  int window = 0;         // keys a row sees, itself included; 0: all
  float soft_cap = 0.0F;  // of scores; 0: none
};

class Attention {
 public:
  Attention(const Kernels& kernels, int heads, const PageShape& shape, int threads);

  // queries: row r, head h at queries + r · stride + h · width, already scaled.
  // out: [rows, heads · width]. Runs with a watch have their weights added to it; the bits of `out`
  // do not depend on that.
  void attend(int layer, const AttentionRule& rule, const std::vector<RowRun>& runs,
              const float* queries, std::size_t stride, float* out, ForkJoin& pool);

 private:
  struct PartialRows {  // of a run and a KV head: positions · group rows
    float* maxima;
    float* sums;
    float* outputs;
  };
  struct Partial {
    void fit(int rows, int width);  // grows it
    PartialRows from(int row, int width);
    std::vector<float> maxima;
    std::vector<float> sums;
    std::vector<float> outputs;
  };

  // The layer at hand.
  struct Task {
    int layer;
    AttentionRule rule;
    const float* queries;
    std::size_t stride;
  };
  // All of the page's task but where results go.
  AttendPage page_task(const Task& task, const RowRun& run, int kv_head, int page) const;
  void run_kernel(const AttendPage& task) const;
  void attend_page(const Task& task, const RowRun& run, int kv_head, int page, float* scores,
                   PartialRows to) const;
  void merge(const RowRun& run, PartialRows into, PartialRows page) const;
  void finish(const RowRun& run, int kv_head, PartialRows from, float* out) const;
  // What is kept of a page, of rows that are watched.
  struct KeptRows {
    float* scores;   // [rows, kAttendScores]: e^(score − the page's maximum)
    float* sums;     // [rows], of those that the watch's softmax is over
    float* factors;  // [rows]: score → weight
  };
  struct Kept {
    void fit(int rows);
    KeptRows from(int row);
    std::vector<float> scores;
    std::vector<float> sums;
    std::vector<float> factors;
  };
  void prepare_watch(const Task& task, const RowRun& run) const;  // makes room in it
  static std::size_t entries_before(const Task& task, const RowRun& run, int kv_head, int page);
  // Calls each(row, query head of the group, first slot, begin, end) for the slots of these
  // positions that the run's rows see.
  template <class Each>
  void for_seen(const Task& task, const RowRun& run, int kv_head, int page,
                std::pair<Position, Position> positions, Each each) const;
  void sum_watched(const Task& task, const RowRun& run, int kv_head, int page, const float* sums,
                   KeptRows kept) const;
  static void find_factors(std::span<const PartialRows> parts, std::span<const KeptRows> pages,
                           int rows);
  void fold_watched(const Task& task, const RowRun& run, int kv_head, int page,
                    KeptRows kept) const;
  void attend_whole(const Task& task, const std::vector<RowRun>& runs, float* out, ForkJoin& pool);
  void attend_split(const Task& task, const std::vector<RowRun>& runs, float* out, ForkJoin& pool);

  const Kernels& kernels_;
  int heads_;
  int group_;  // query heads that share a KV head
  PageShape shape_;
  std::vector<std::vector<float>> scores_;  // by thread: [kAttendPositions, group, kAttendScores]
  std::vector<Partial> whole_;              // by thread
  std::vector<Partial> page_;               // by thread
  std::vector<Partial> split_;              // by KV head and page: of all the step's rows
  std::vector<Kept> kept_;                  // the same, where rows are watched
};

}  // namespace kvfs::model::cpu

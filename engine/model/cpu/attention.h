// Attention of a step's rows to their sequences' pages.
//
// Each row attends page by page, pages upwards, joined by log-sum-exp (FlashAttention's online
// softmax, arXiv 2205.14135, cut at fixed absolute positions): its bits depend on the keys before
// it alone. Prefill walks a row's pages in one go; decode, with few rows, gives each page to
// whichever thread is free and joins afterwards, in the same order.
#pragma once

#include <vector>

#include "engine/model/cpu/fork_join.h"
#include "engine/model/cpu/kernels.h"
#include "engine/model/cpu/paged_sequence.h"
#include "engine/prune/observation.h"

namespace kvfs::model::cpu {

// Rows of a step that follow each other in one sequence, all in one page.
struct RowRun {
  const PagedSequence* sequence;
  int first_row;  // in the step
  int count;      // at most kAttendPositions
  Position first_pos;
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
  // out: [rows, heads · width].
  void attend(int layer, const AttentionRule& rule, const std::vector<RowRun>& runs,
              const float* queries, std::size_t stride, float* out, ForkJoin& pool);

  // Adds the weights that attend() gives the entries of one sequence in these rows to those before:
  // by query head and entry of its KV head, in order of position. A pass of its own over the keys.
  void add_weights(int layer, const AttentionRule& rule, const std::vector<RowRun>& runs,
                   const float* queries, std::size_t stride, prune::HeadScores& to,
                   ForkJoin& pool) const;

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
  // What one row gives the pages it looks at, for the heads that share a KV head.
  struct RowWeights {
    struct Seen {
      std::size_t first_entry;
      int begin;  // slots of the page's scores
      int end;
    };
    std::vector<Seen> pages;
    std::vector<float> scores;  // [pages, group, kAttendScores]
    std::vector<float> maxima;  // [pages, group]
    std::vector<float> sums;    // [pages, group]
    std::vector<float> outputs;
  };
  void weigh_row(const Task& task, const RowRun& row, int kv_head, RowWeights& to) const;
  void add_row(const RowWeights& row, int query_head, std::vector<float>& to) const;
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
};

}  // namespace kvfs::model::cpu

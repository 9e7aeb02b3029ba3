// What a sequence's cache shows of itself to a method of pruning (engine/prune/observation.h).
//
// Engine thread.
#pragma once

#include "engine/model/cpu/fork_join.h"
#include "engine/model/cpu/forward.h"
#include "engine/model/cpu/kernels.h"
#include "engine/model/cpu/kv_pages.h"
#include "engine/model/cpu/paged_sequence.h"
#include "engine/model/cpu/watch.h"
#include "engine/prune/observation.h"

namespace kvfs::model::cpu {

// The entries' positions, nothing else.
prune::Observation list_entries(const PageShape& shape, const PagedSequence& sequence);

// Fills scores with each key's L2 norm.
void measure_keys(const PageShape& shape, const PagedSequence& sequence, ForkJoin& threads,
                  prune::Observation& to);

// Fills scores with the weights, by layer and query head, of a sequence that holds at least the
// same positions as the observed one: those of the observed one's entries.
void take_weights(const PageShape& shape, const PagedSequence& weighed,
                  const std::vector<prune::HeadScores>& weights, prune::Observation& to);

// Divides an entry's score by the number of tokens, of those before `end`, that could see it.
void divide_by_queries(const Architecture& architecture, Position end, prune::Observation& to);

// Fills scores with the exponents that queries to come are expected to give each key, taken to be
// normally distributed as those that were seen and turned as on the average of the next positions;
// and the values' norms. arXiv 2510.00636; kvpress, expected_attention_press.py.
void expect_weights(const PageShape& shape, const PagedSequence& sequence, const Kernels& kernels,
                    const Forward& forward, const QueryMoments& queries, ForkJoin& threads,
                    prune::Observation& to);

}  // namespace kvfs::model::cpu

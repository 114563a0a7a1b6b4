// SPDX-License-Identifier: Apache-2.0
#include "trace/stats_mark.h"

namespace looptrace {

void HistogramMark::set(const Counts& counts) {
  used_.clear();
  for (uint32_t i = 0; i < LT_HIST_BUCKETS; ++i) {
    if (counts[i]) used_.emplace_back(i, counts[i]);
  }
  used_.shrink_to_fit();
}

std::vector<uint32_t> HistogramMark::since(const Counts& now) const {
  std::vector<uint32_t> counts(now, now + LT_HIST_BUCKETS);
  for (const auto& [bucket, count] : used_) counts[bucket] -= count;
  return counts;
}

void StatsMark::set(const lt_stats& stats) {
  iterations = stats.iterations;
  stalls = stats.stalls;
  stall_ns = stats.stall_ns;
  unconfirmed = stats.unconfirmed;
  iteration_sum_ns = stats.iteration_sum_ns;
  wakeup_sum_ns = stats.wakeup_sum_ns;
  iteration_hist.set(stats.iteration_hist);
  wakeup_hist.set(stats.wakeup_hist);
}

}  // namespace looptrace

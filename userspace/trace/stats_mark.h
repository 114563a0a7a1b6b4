// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "looptrace.h"

namespace looptrace {

/// A histogram as it was: only the buckets in use, since a loop uses twenty of 258 and there may be 10,000
/// loops.
class HistogramMark {
 public:
  using Counts = uint32_t[LT_HIST_BUCKETS];

  void set(const Counts& counts);
  /// What was counted since, of each bucket.
  std::vector<uint32_t> since(const Counts& now) const;

 private:
  std::vector<std::pair<uint32_t, uint32_t>> used_;  // bucket, count
};

/// The counters of a loop at its last record.
struct StatsMark {
  uint64_t iterations = 0, stalls = 0, stall_ns = 0, unconfirmed = 0;
  uint64_t iteration_sum_ns = 0, wakeup_sum_ns = 0;
  HistogramMark iteration_hist, wakeup_hist;

  void set(const lt_stats& stats);
};

}  // namespace looptrace

// SPDX-License-Identifier: Apache-2.0
// What a loop has counted since its last record: to the last one, whatever the bucket.
#include <gtest/gtest.h>

#include <numeric>

#include "trace/stats_mark.h"

namespace looptrace {
namespace {

TEST(StatsMark, TellsWhatWasCountedSince) {
  lt_stats stats{};
  stats.wakeup_hist[0] = 3;
  stats.wakeup_hist[40] = 7;
  stats.wakeup_hist[LT_HIST_BUCKETS - 1] = 1;
  StatsMark mark;
  const auto all = mark.wakeup_hist.since(stats.wakeup_hist);
  EXPECT_EQ(std::accumulate(all.begin(), all.end(), 0u), 11u);

  mark.set(stats);
  stats.wakeup_hist[40] += 2;
  stats.wakeup_hist[41] = 5;
  stats.wakeup_hist[LT_HIST_BUCKETS - 1] += 1;
  const auto since = mark.wakeup_hist.since(stats.wakeup_hist);
  EXPECT_EQ(since.size(), size_t{LT_HIST_BUCKETS});
  EXPECT_EQ(since[0], 0u);
  EXPECT_EQ(since[40], 2u);
  EXPECT_EQ(since[41], 5u);
  EXPECT_EQ(since[LT_HIST_BUCKETS - 1], 1u);
  EXPECT_EQ(std::accumulate(since.begin(), since.end(), 0u), 8u);
}

TEST(StatsMark, ACounterThatWrappedIsCountedOn) {
  lt_stats stats{};
  stats.iteration_hist[9] = UINT32_MAX;
  StatsMark mark;
  mark.set(stats);
  stats.iteration_hist[9] = 4;
  EXPECT_EQ(mark.iteration_hist.since(stats.iteration_hist)[9], 5u);
}

}  // namespace
}  // namespace looptrace

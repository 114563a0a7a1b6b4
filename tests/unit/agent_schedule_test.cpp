// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "agent/schedule.h"

namespace looptrace {
namespace {

constexpr uint64_t kMinute = 60'000'000'000;
constexpr uint64_t kNow = 1'795'424'400'123'456'789;

TEST(Schedule, WindowsJoinWithoutGapOrOverlap) {
  const Schedule s("seed", "n1", kMinute, 0.5);
  const Schedule::Window w = s.at(kNow);
  EXPECT_LE(w.start_ns, kNow);
  EXPECT_GT(w.end_ns, kNow);
  EXPECT_EQ(w.end_ns - w.start_ns, kMinute);
  EXPECT_EQ(s.at(w.end_ns).number, w.number + 1);
  EXPECT_EQ(s.at(w.end_ns).start_ns, w.end_ns);
  EXPECT_EQ(s.at(w.end_ns - 1).number, w.number);
  EXPECT_EQ(s.at(0).number, 0u) << "before the first window";
}

TEST(Schedule, IsReplayed) {
  const Schedule a("seed", "n1", kMinute, 0.3), b("seed", "n1", kMinute, 0.3);
  for (uint64_t i = 0; i < 200; ++i) EXPECT_EQ(a.window(i).active, b.window(i).active);
  EXPECT_EQ(a.phase_ns(), b.phase_ns());
  // Fixed for good: what a host did in the past must be worked out alike by every later version.
  std::string first;
  for (uint64_t i = 29'923'740; i < 29'923'772; ++i) first += a.window(i).active ? '1' : '0';
  EXPECT_EQ(first, "00000100000000011000010001000010");
}

TEST(Schedule, HostsAreOutOfStepAndEachSeedDiffers) {
  std::set<uint64_t> phases;
  for (int h = 0; h < 100; ++h)
    phases.insert(Schedule("seed", "n" + std::to_string(h), kMinute, 1).phase_ns());
  EXPECT_EQ(phases.size(), 100u);
  const Schedule a("seed", "n1", kMinute, 0.5), b("other", "n1", kMinute, 0.5);
  int equal = 0;
  for (uint64_t i = 0; i < 1000; ++i) equal += a.window(i).active == b.window(i).active;
  EXPECT_NEAR(equal, 500, 80);
}

// 2,000 hosts at 5 %: 100 of them are active at a time, and each is so 5 % of the time.
TEST(Schedule, TheShareOfActiveHostsIsTheProbability) {
  constexpr int kHosts = 2000, kWindows = 40;
  int all = 0, least = kHosts, most = 0;
  for (int w = 0; w < kWindows; ++w) {
    int active = 0;
    for (int h = 0; h < kHosts; ++h)
      active += Schedule("seed", "host-" + std::to_string(h), kMinute, 0.05)
                    .window(static_cast<uint64_t>(w))
                    .active;
    all += active;
    least = std::min(least, active);
    most = std::max(most, active);
  }
  // Of 40 binomial draws: the mean within four of its standard errors, each within five of its own.
  EXPECT_NEAR(all / double{kWindows}, 100, 4 * std::sqrt(95.0 / kWindows));
  EXPECT_GT(least, 100 - 5 * std::sqrt(95.0));
  EXPECT_LT(most, 100 + 5 * std::sqrt(95.0));
}

TEST(Schedule, CertainAndNearlyImpossible) {
  const Schedule always("seed", "n1", kMinute, 1), hardly("seed", "n1", kMinute, 1e-12);
  for (uint64_t i = 0; i < 1000; ++i) {
    EXPECT_TRUE(always.window(i).active);
    EXPECT_FALSE(hardly.window(i).active);
  }
}

}  // namespace
}  // namespace looptrace

// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "agent/governor.h"

namespace looptrace {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;
constexpr BudgetLimits kLimits{0.005, 100u << 20};

/// One second in which `share` of a core was used.
BudgetUse second(double share) {
  BudgetUse use;
  use.elapsed_ns = kSecond;
  use.cpu_ns = static_cast<uint64_t>(share * kSecond);
  use.resident_bytes = 50u << 20;
  return use;
}

int seconds_until(Governor& governor, BudgetLevel level, double share, int most) {
  for (int s = 1; s <= most; ++s) {
    governor.look(second(share));
    if (governor.level() == level) return s;
  }
  return -1;
}

TEST(Governor, StaysAtFullWithinTheBudget) {
  Governor governor(kLimits);
  for (int i = 0; i < 3600; ++i) EXPECT_FALSE(governor.look(second(0.0045)));
  EXPECT_EQ(governor.level(), BudgetLevel::full);
  EXPECT_EQ(governor.reason(), "");
  EXPECT_NEAR(governor.used(), 0.0045, 1e-6);
}

TEST(Governor, AShortBurstIsPaidFromWhatWasSaved) {
  Governor governor(kLimits);
  EXPECT_FALSE(governor.look(second(0.25))) << "the symbols of a new program";
  for (int i = 0; i < 600; ++i) governor.look(second(0.001));
  EXPECT_EQ(governor.level(), BudgetLevel::full);
}

TEST(Governor, ShedsFastUntilNothingIsAttached) {
  Governor governor(kLimits);
  const int heavy = seconds_until(governor, BudgetLevel::hooks_off, 0.5, 100);
  EXPECT_GT(heavy, 0);
  EXPECT_LE(heavy, 8) << "a hundred times the budget, the advance included";
  EXPECT_EQ(governor.reason(), "cpu");

  Governor slow(kLimits);
  const int light = seconds_until(slow, BudgetLevel::no_source_lines, 0.008, 2000);
  EXPECT_GT(light, 200) << "what was saved is used up first";
  EXPECT_LT(light, 600);
}

// Each level helps: it stops where the load fits.
TEST(Governor, ShedsNoMoreThanItMust) {
  Governor governor(kLimits);
  BudgetLevel highest = BudgetLevel::full;
  for (int i = 0; i < 200; ++i) {
    governor.look(second(governor.level() >= BudgetLevel::no_stacks ? 0.003 : 0.02));
    highest = std::max(highest, governor.level());
  }
  EXPECT_EQ(budget_level_name(highest), std::string("no_stacks"));
}

TEST(Governor, RecoversSlowlyAndOneLevelAtATime) {
  Governor governor(kLimits);
  ASSERT_GT(seconds_until(governor, BudgetLevel::hooks_off, 0.5, 100), 0);
  int last = static_cast<int>(BudgetLevel::hooks_off), at = 0;
  for (int s = 1; s < 3600 && governor.level() != BudgetLevel::full; ++s) {
    governor.look(second(0.0001));
    const int level = static_cast<int>(governor.level());
    if (level == last) continue;
    EXPECT_EQ(level, last - 1);
    EXPECT_GE(s - at, 30) << "after a quiet half minute";
    last = level;
    at = s;
  }
  EXPECT_EQ(governor.level(), BudgetLevel::full);
  EXPECT_EQ(governor.reason(), "");
}

// A load that is there whenever the hooks are: without hysteresis it would swing each minute.
TEST(Governor, RelapsesMakeItWaitLonger) {
  Governor governor(kLimits);
  uint64_t changes_early = 0, changes_late = 0;
  constexpr int kHours = 8;
  for (int s = 0; s < kHours * 3600; ++s) {
    const double share = governor.level() == BudgetLevel::hooks_off ? 0.0001 : 0.5;
    if (governor.look(second(share))) ++(s < 3600 ? changes_early : changes_late);
  }
  EXPECT_GT(changes_early, 4u) << "it tries again";
  EXPECT_LT(static_cast<double>(changes_late) / (kHours - 1), static_cast<double>(changes_early));
  EXPECT_LT(changes_late / (kHours - 1), 20u) << "an hour, later on";
}

TEST(Governor, StaysBelowTheBudgetInTheLongRun) {
  Governor governor(kLimits);
  double used = 0;
  constexpr int kSeconds = 8 * 3600;
  for (int s = 0; s < kSeconds; ++s) {
    const double share = governor.level() == BudgetLevel::hooks_off ? 0.0001
                         : governor.level() == BudgetLevel::full    ? 0.05
                                                                    : 0.01;
    governor.look(second(share));
    used += share;
  }
  EXPECT_LT(used / kSeconds, kLimits.cpu);
}

TEST(Governor, LossesAndMemoryShedToo) {
  Governor ring(kLimits);
  BudgetUse use = second(0.001);
  use.lost = 1;
  EXPECT_TRUE(ring.look(use));
  EXPECT_EQ(ring.reason(), "ring");
  use.lost = 0;
  use.ring_peak = 0.9;
  EXPECT_TRUE(ring.look(use));

  Governor memory(kLimits);
  use = second(0.001);
  use.resident_bytes = 101u << 20;
  EXPECT_TRUE(memory.look(use));
  EXPECT_EQ(memory.reason(), "memory");
  Governor without({0.005, 0});
  EXPECT_FALSE(without.look(use)) << "no limit";
}

TEST(Governor, AClockThatStandsStillIsNoUse) {
  Governor governor(kLimits);
  BudgetUse use = second(1);
  use.elapsed_ns = 0;
  EXPECT_FALSE(governor.look(use));
}

}  // namespace
}  // namespace looptrace

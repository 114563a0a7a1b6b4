// SPDX-License-Identifier: Apache-2.0
// Which loops are probed late: those that poll all the time, and no others.
#include <gtest/gtest.h>

#include "trace/saturation.h"

namespace looptrace {
namespace {

constexpr uint64_t kMs = 1'000'000, kSuspect = 5 * kMs;

/// A loop looks late, a probe comes, and `polled_after` later it begins an iteration.
void probe(Saturation& s, uint64_t at, uint64_t polled_after, bool entered) {
  s.look(at, at - 6 * kMs, false, 0, kSuspect);
  s.look(at + polled_after + kMs / 10, at + polled_after, entered, at, kSuspect);
}

TEST(Saturation, IsThreeProbesThatSawItPollAtOnce) {
  Saturation s;
  for (uint64_t i = 1; i <= 3; ++i) {
    EXPECT_FALSE(s.is_saturated(i * 100 * kMs));
    probe(s, i * 100 * kMs, kMs / 20, true);
  }
  EXPECT_TRUE(s.is_saturated(310 * kMs));
  EXPECT_FALSE(s.is_saturated(1400 * kMs)) << "it is asked again after a second";
}

TEST(Saturation, IsNoLoopThatSleeps) {
  Saturation s;
  for (uint64_t i = 1; i <= 9; ++i) probe(s, i * 100 * kMs, kMs / 20, false);
  EXPECT_FALSE(s.is_saturated(901 * kMs));
}

TEST(Saturation, IsNoLoopThatStalls) {
  Saturation s;
  for (uint64_t i = 1; i <= 9; ++i) probe(s, i * 100 * kMs, 12 * kMs, true);
  EXPECT_FALSE(s.is_saturated(915 * kMs)) << "it was long in what it did";
}

TEST(Saturation, IsNotToldFromIterationsThatTheProbeSawFromTheirBeginOn) {
  Saturation s;
  const uint64_t hooked = 100 * kMs;
  for (uint64_t i = 0; i < 20; ++i) {
    const uint64_t start = hooked + i * 6 * kMs;
    s.look(start + 6 * kMs - 1, start, true, hooked, kSuspect);
  }
  EXPECT_FALSE(s.is_saturated(hooked + 120 * kMs)) << "each took 6 ms indeed";
}

}  // namespace
}  // namespace looptrace

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

/// A saturated loop whose polls are all seen from `since` on.
Saturation saturated(uint64_t since) {
  Saturation s;
  for (uint64_t i = 1; i <= 3; ++i) probe(s, since - (4 - i) * 50 * kMs, kMs / 20, true);
  return s;
}

TEST(Saturation, LastsWhileFewPollsSleep) {
  constexpr uint64_t kSince = 1000 * kMs;
  Saturation s = saturated(kSince);
  for (uint64_t i = 0; i < 200; ++i) s.count(kSince + i * 20 * kMs, i * 100, i, kSince, kSuspect);
  EXPECT_TRUE(s.is_saturated(kSince + 4000 * kMs));
  EXPECT_FALSE(s.is_too_short(kSince + 4000 * kMs));
}

TEST(Saturation, EndsWherePollsSleepOften) {
  constexpr uint64_t kSince = 1000 * kMs;
  Saturation s = saturated(kSince);  // 100 polls in 20 ms, of which ten sleep: it is never suspect
  for (uint64_t i = 0; i < 200; ++i) s.count(kSince + i * 20 * kMs, i * 100, i * 10, kSince, kSuspect);
  EXPECT_FALSE(s.is_saturated(kSince + 4000 * kMs));
}

TEST(Saturation, EndsWhereALoopIsLateNowAndThenAndSleepsAfterIt) {
  constexpr uint64_t kSince = 1000 * kMs;
  Saturation s = saturated(kSince);
  for (uint64_t i = 0; i < 40; ++i) s.count(kSince + i * 100 * kMs, i, i, kSince, kSuspect);
  EXPECT_FALSE(s.is_saturated(kSince + 4000 * kMs));
}

TEST(Saturation, EndsWhereNothingIsPolled) {
  constexpr uint64_t kSince = 1000 * kMs;
  Saturation s = saturated(kSince);
  for (uint64_t i = 0; i < 200; ++i) s.count(kSince + i * 20 * kMs, 7, 0, kSince, kSuspect);
  EXPECT_FALSE(s.is_saturated(kSince + 4000 * kMs));
}

TEST(Saturation, TellsIterationsTooShortToSeeEach) {
  constexpr uint64_t kSince = 1000 * kMs;
  Saturation s = saturated(kSince);
  s.count(kSince, 0, 0, kSince, kSuspect);
  s.count(kSince + kMs, 500, 0, kSince, kSuspect);  // in 1 ms
  EXPECT_TRUE(s.is_saturated(kSince + kMs));
  EXPECT_TRUE(s.is_too_short(kSince + kMs));
  EXPECT_FALSE(s.is_too_short(kSince + 20'000 * kMs)) << "it is asked again";
}

TEST(Saturation, CountsNothingAcrossATimeThatWasNotSeen) {
  constexpr uint64_t kSince = 1000 * kMs;
  Saturation s = saturated(kSince);
  s.count(kSince, 0, 0, kSince, kSuspect);
  s.count(kSince + 10 * kMs, 0, 0, 0, kSuspect);
  s.count(kSince + 20 * kMs, 100'000, 0, kSince + 20 * kMs, kSuspect);
  EXPECT_FALSE(s.is_too_short(kSince + 20 * kMs));
}

}  // namespace
}  // namespace looptrace

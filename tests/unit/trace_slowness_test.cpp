// SPDX-License-Identifier: Apache-2.0
// For which loops the probe is kept: those that are slow indeed.
#include <gtest/gtest.h>

#include "trace/slowness.h"

namespace looptrace {
namespace {

constexpr uint64_t kMs = 1'000'000;

TEST(Slowness, IsAskedOnceAndNotAgainForALoopThatOnlyLooksSlow) {
  Slowness s;
  EXPECT_TRUE(s.suspect(100 * kMs, false)) << "not known";
  for (uint64_t t = 200; t < 5000; t += 100) EXPECT_FALSE(s.suspect(t * kMs, false)) << t;
  EXPECT_TRUE(s.suspect(5100 * kMs, false)) << "it may have changed";
}

TEST(Slowness, IsBelievedWhileTheProbeShowsIt) {
  Slowness s;
  EXPECT_TRUE(s.suspect(100 * kMs, false));
  for (uint64_t t = 150; t < 3000; t += 50) EXPECT_TRUE(s.suspect(t * kMs, true)) << t;
  EXPECT_TRUE(s.suspect(3900 * kMs, false)) << "it was, a moment ago";
  EXPECT_FALSE(s.suspect(4000 * kMs, false));
}

}  // namespace
}  // namespace looptrace

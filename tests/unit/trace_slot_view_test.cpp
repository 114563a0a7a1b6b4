// SPDX-License-Identifier: Apache-2.0
// What user space makes of a slot between two events of the kernel: an open record's times must add up, too.
#include <gtest/gtest.h>

#include "trace/slot_view.h"

namespace looptrace {
namespace {

constexpr uint64_t kMs = 1'000'000;

uint64_t sum(const lt_iteration& it) {
  return it.part_ns[LT_PART_ON_CPU] + it.part_ns[LT_PART_RUNQUEUE] + it.part_ns[LT_PART_BLOCKED];
}

lt_slot busy_since(uint64_t start) {
  lt_slot s{};
  s.phase = LT_PHASE_BUSY;
  s.confirmed = 1;
  s.it.start_ns = start;
  s.on_ns = start;
  s.off_fd = -1;
  s.off_nr = -1;
  return s;
}

TEST(SlotView, ARunningThreadIsOnCpuUpToNow) {
  lt_slot s = busy_since(1000 * kMs);
  s.running = 1;
  book_until(s, 1070 * kMs, 0);
  EXPECT_EQ(s.it.part_ns[LT_PART_ON_CPU], 70 * kMs);
  EXPECT_EQ(sum(s.it), 70 * kMs);
}

TEST(SlotView, ABlockedThreadsWaitIsBookedUpToNow) {
  lt_slot s = busy_since(1000 * kMs);
  s.it.part_ns[LT_PART_ON_CPU] = 10 * kMs;
  s.off_ns = 1010 * kMs;
  s.off_reason = LT_OFF_BLOCKED;
  s.off_nr = 0;  // read
  s.off_fd = 7;
  book_until(s, 1060 * kMs, 0);
  EXPECT_EQ(s.it.part_ns[LT_PART_BLOCKED], 50 * kMs);
  EXPECT_EQ(sum(s.it), 60 * kMs);
  ASSERT_EQ(s.it.nwaits, 1u);
  EXPECT_EQ(s.it.waits[0].total_ns, 50 * kMs);
  EXPECT_EQ(s.it.waits[0].target.fd, 7);
}

TEST(SlotView, ASnapshotIsTheSlot) {
  lt_slot s = busy_since(5);
  s.switches = 3;
  const auto copy = snapshot(s);
  ASSERT_TRUE(copy);
  EXPECT_EQ(copy->it.start_ns, 5u);
  EXPECT_EQ(copy->switches, 3u);
}

TEST(SlotView, WhatGoesOnCountsAsBusyOrIdle) {
  lt_stats stats{};
  stats.busy_ns = 100;
  stats.idle_ns = 40;
  lt_slot s = busy_since(1000);
  EXPECT_EQ(busy_and_idle(stats, s, 1007).busy_ns, 107u);
  EXPECT_EQ(busy_and_idle(stats, s, 1007).idle_ns, 40u);
  s.phase = LT_PHASE_IDLE;
  s.poll_ns = 2000;
  EXPECT_EQ(busy_and_idle(stats, s, 2030).busy_ns, 100u);
  EXPECT_EQ(busy_and_idle(stats, s, 2030).idle_ns, 70u);
  // The clocks of two CPUs: never less than nothing.
  EXPECT_EQ(busy_and_idle(stats, s, 1999).idle_ns, 40u);
}

TEST(SlotView, AThreadThatSleepsInItsPollAllTheWhileIsALoop) {
  lt_slot s{};
  EXPECT_FALSE(looks_like_loop(s));
  s.loop.seen = 1;
  s.loop.call.kind = LT_POLL_EPOLL;
  s.phase = LT_PHASE_IDLE;
  EXPECT_TRUE(looks_like_loop(s));
  s.loop.call.kind = LT_POLL_POLL;  // of one descriptor: a client waiting for its answer
  s.loop.call.nfds = 1;
  EXPECT_FALSE(looks_like_loop(s));
  s.confirmed = 1;
  EXPECT_TRUE(looks_like_loop(s));
}

}  // namespace
}  // namespace looptrace

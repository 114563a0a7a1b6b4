// SPDX-License-Identifier: Apache-2.0
// The account of an iteration, as compiled into the BPF programs: it adds up whatever happens, and says of
// itself how certain it is.
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "arch.h"
#include "ledger.h"
#include "record/histogram.h"

namespace {

constexpr __u64 kMs = 1'000'000;

__u64 sum_of(const lt_iteration& it) {
  return it.part_ns[LT_PART_ON_CPU] + it.part_ns[LT_PART_RUNQUEUE] + it.part_ns[LT_PART_BLOCKED];
}

TEST(Ledger, PartsSumToTheDurationInAnyOrderOfEvents) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 2000; ++round) {
    lt_slot s{};
    __u64 now = 1 + random() % 1'000'000'000, hook = 0;
    const __u64 start = now;
    lt_begin(&s, now, static_cast<__u32>(random() % 3));
    bool running = true;
    for (int i = static_cast<int>(random() % 60); i > 0; --i) {
      now += random() % (5 * kMs);
      if (random() % 5 == 0) hook = hook ? 0 : now - random() % 100;
      if (running) {
        lt_switch_out(&s, now, hook, 1 + static_cast<__u32>(random() % 3));
      } else {
        const __u64 queued = random() % (8 * kMs);  // the scheduler's count may exceed the segment
        const lt_off_segment seg = lt_switch_in(&s, now, queued);
        EXPECT_EQ(seg.blocked_ns + seg.runqueue_ns, now - s.off_ns);
      }
      running = !running;
      ASSERT_EQ(sum_of(s.it), now - start);
      EXPECT_LE(s.it.stopped_ns, s.it.part_ns[LT_PART_BLOCKED]);
    }
    now += random() % kMs;
    const __u64 duration = lt_end(&s, now, hook);
    ASSERT_EQ(duration, now - start);
    ASSERT_EQ(sum_of(s.it), duration);
    EXPECT_LE(s.it.certain_ns, duration);
    EXPECT_EQ(s.phase, static_cast<__u32>(LT_PHASE_IDLE));
  }
}

TEST(Ledger, ADoubtLeavesNothingCertainBeforeIt) {
  lt_slot s{};
  lt_begin(&s, 100 * kMs, LT_BEGAN_SLEPT);
  lt_switch_out(&s, 150 * kMs, 1, LT_OFF_BLOCKED);
  lt_switch_in(&s, 160 * kMs, 0);
  lt_doubt(&s.it, 180 * kMs);
  EXPECT_EQ(lt_end(&s, 190 * kMs, 1), 90 * kMs);
  EXPECT_EQ(s.it.certain_ns, 10 * kMs);
  EXPECT_EQ(sum_of(s.it), 90 * kMs);
}

TEST(Ledger, AHookSawTheBeginIfItWasThere) {
  lt_slot s{};
  lt_begin(&s, 100, LT_BEGAN_ENTERED);
  EXPECT_FALSE(lt_saw_begin(&s.it, 0));
  EXPECT_FALSE(lt_saw_begin(&s.it, 101));
  EXPECT_TRUE(lt_saw_begin(&s.it, 100));
}

TEST(Ledger, AnIterationOfASaturatedLoopIsSuspectOnceItWouldHaveBeenSeenToPoll) {
  lt_slot s{};
  lt_begin(&s, 100 * kMs, LT_BEGAN_ENTERED);
  EXPECT_FALSE(lt_is_suspect(&s, 104 * kMs, 5 * kMs, 0));
  EXPECT_TRUE(lt_is_suspect(&s, 105 * kMs, 5 * kMs, 0));
  s.saturated = 1;
  EXPECT_FALSE(lt_is_suspect(&s, 140 * kMs, 5 * kMs, 0));
  EXPECT_FALSE(lt_is_suspect(&s, 129 * kMs, 5 * kMs, 125 * kMs)) << "it may be about to poll";
  EXPECT_TRUE(lt_is_suspect(&s, 130 * kMs, 5 * kMs, 125 * kMs));
}

TEST(Ledger, TimePreemptedInOurOwnHookIsRunQueue) {
  lt_slot s{};
  lt_begin(&s, 100, LT_BEGAN_SLEPT);
  lt_book_preempted(&s, 250);
  EXPECT_EQ(lt_end(&s, 1000, 1), 900u);
  EXPECT_EQ(s.it.part_ns[LT_PART_RUNQUEUE], 250u);
  EXPECT_EQ(s.it.part_ns[LT_PART_ON_CPU], 650u);
  EXPECT_EQ(s.it.certain_ns, 900u) << "the hook saw all of it";
}

TEST(Ledger, TimePreemptedInOurOwnHookOutsideOfAnIterationIsNobodys) {
  lt_slot s{};
  s.phase = LT_PHASE_IDLE;
  lt_book_preempted(&s, 250);
  EXPECT_EQ(sum_of(s.it), 0u);
  lt_begin(&s, 100, LT_BEGAN_SLEPT);
  lt_switch_out(&s, 150, 0, LT_OFF_BLOCKED);
  lt_book_preempted(&s, 250);
  EXPECT_EQ(sum_of(s.it), 50u);
}

TEST(Ledger, AWaitIsBookedWithAllThatTheSlotKnowsOfIt) {
  lt_slot s{};
  lt_begin(&s, 0, LT_BEGAN_SLEPT);
  s.off_nr = LT_NR_poll;
  s.off_fd = 7;
  s.off_arg0 = 11;
  s.off_prev_state = LT_TASK_UNINTERRUPTIBLE;
  s.off_capture = 3;
  s.in_target.fd = 7;
  s.wake_pid = 42;
  lt_book_wait(&s, 500);
  s.off_capture = 4;
  s.wake_pid = 43;
  lt_book_wait(&s, 200);
  ASSERT_EQ(s.it.nwaits, 1u);
  const lt_wait& w = s.it.waits[0];
  EXPECT_EQ(w.count, 2u);
  EXPECT_EQ(w.total_ns, 700u);
  EXPECT_EQ(w.longest_ns, 500u);
  EXPECT_EQ(w.capture, 3u);
  EXPECT_EQ(w.waker_pid, 42u) << "of the longest";
  EXPECT_EQ(w.flags, static_cast<__u32>(LT_WAIT_UNINTERRUPTIBLE));
  EXPECT_EQ(w.target.fd, 7);
  EXPECT_EQ(s.it.top[0].ns + s.it.top[1].ns + s.it.top[2].ns + s.it.top[3].ns, 700u);
}

TEST(Waits, KeepAStackAlsoIfTheLongestHasNone) {
  lt_slot s{};
  s.off_nr = -1;
  for (const auto& [capture, ns] : {std::pair<__u64, __u64>{0, 10}, {5, 20}, {6, 15}, {0, 90}}) {
    s.off_capture = capture;
    lt_book_wait(&s, ns);
  }
  EXPECT_EQ(s.it.waits[0].capture, 0u);
  EXPECT_EQ(s.it.waits[0].other_capture, 5u);
}

TEST(Ledger, APreemptedThreadWasInTheRunQueueAllTheTime) {
  lt_slot s{};
  lt_begin(&s, 100, LT_BEGAN_SLEPT);
  lt_switch_out(&s, 150, 0, LT_OFF_PREEMPTED);
  const lt_off_segment seg = lt_switch_in(&s, 950, 0);
  EXPECT_EQ(seg.runqueue_ns, 800u);
  EXPECT_EQ(seg.blocked_ns, 0u);
}

TEST(Ledger, AStopIsBlockedTimeToldApart) {
  lt_slot s{};
  lt_begin(&s, 100, LT_BEGAN_SLEPT);
  lt_switch_out(&s, 150, 0, LT_OFF_STOPPED);
  lt_switch_in(&s, 950, 50);
  EXPECT_EQ(s.it.stopped_ns, 750u);
  EXPECT_EQ(s.it.part_ns[LT_PART_RUNQUEUE], 50u);
}

TEST(Ledger, ABeginForgetsTheLastIteration) {
  lt_slot s{};
  lt_begin(&s, 100, LT_BEGAN_SLEPT);
  lt_switch_out(&s, 150, 0, LT_OFF_BLOCKED);
  lt_switch_in(&s, 900, 10);
  lt_keep_segment(&s.it, 3, 750);
  lt_wait_add(lt_wait_find(&s.it, 230, 0, 0), 750);
  lt_end(&s, 1000, 0);
  const __u64 seq = s.it.seq;
  lt_begin(&s, 2000, LT_BEGAN_ENTERED);
  EXPECT_EQ(s.it.seq, seq + 1);
  EXPECT_EQ(sum_of(s.it), 0u);
  EXPECT_EQ(s.it.nwaits + s.it.segments + s.it.certain_ns + s.it.top[0].ns, 0u);
  EXPECT_EQ(s.it.in_poll, 1u);
}

TEST(Certainty, TimeOffCpuHidesNoPoll) {
  lt_slot s{};
  lt_begin(&s, 0, LT_BEGAN_SLEPT);
  lt_switch_out(&s, 5 * kMs, 0, LT_OFF_BLOCKED);
  lt_switch_in(&s, 65 * kMs, 0);
  const __u64 duration = lt_end(&s, 70 * kMs, 0);
  EXPECT_EQ(duration, 70 * kMs);
  EXPECT_EQ(s.it.certain_ns, 60 * kMs) << "the sleep alone";
  EXPECT_EQ(s.it.certain_edge_ns, 5 * kMs) << "the unobserved running before it";
}

TEST(Certainty, RunningTimeCountsFromWhenTheHookWasAttached) {
  lt_slot s{};
  lt_begin(&s, 0, LT_BEGAN_SLEPT);
  lt_end(&s, 100 * kMs, 30 * kMs);
  EXPECT_EQ(s.it.certain_ns, 70 * kMs);
  EXPECT_EQ(s.it.certain_edge_ns, 30 * kMs);
}

TEST(Certainty, AHookFromBeforeMakesAllOfItCertain) {
  lt_slot s{};
  lt_begin(&s, 50 * kMs, LT_BEGAN_ENTERED);
  lt_switch_out(&s, 60 * kMs, 1, LT_OFF_BLOCKED);
  lt_switch_in(&s, 90 * kMs, 0);
  lt_end(&s, 120 * kMs, 1);
  EXPECT_EQ(s.it.certain_ns, 70 * kMs);
  EXPECT_EQ(s.it.certain_edge_ns, 0u);
}

TEST(Certainty, AHookThatGoesCutsTheStretch) {
  lt_slot s{};
  lt_begin(&s, 10 * kMs, LT_BEGAN_ENTERED);
  lt_switch_out(&s, 40 * kMs, 5 * kMs, LT_OFF_BLOCKED);
  lt_switch_in(&s, 45 * kMs, 0);
  lt_end(&s, 100 * kMs, 0);
  EXPECT_EQ(s.it.certain_ns, 35 * kMs) << "up to when it ran unobserved";
}

__u32 judge(__u64 certain, __u64 edge, __u32 began, __u64 duration, int trust = 0) {
  lt_iteration it{};
  it.certain_ns = certain;
  it.certain_edge_ns = edge;
  it.began = began;
  return lt_judge(&it, duration, 50 * kMs, trust);
}

TEST(Judge, TellsAStallFromShortIterationsAtEverySeam) {
  EXPECT_EQ(judge(0, 0, LT_BEGAN_SLEPT, 50 * kMs - 1, 1), static_cast<__u32>(LT_NOT_A_STALL));
  EXPECT_EQ(judge(0, 0, LT_BEGAN_SLEPT, 50 * kMs, 1), static_cast<__u32>(LT_IS_STALL)) << "trusted";
  EXPECT_EQ(judge(50 * kMs, 0, LT_BEGAN_ENTERED, 60 * kMs), static_cast<__u32>(LT_IS_STALL));
  EXPECT_EQ(judge(25 * kMs, 0, LT_BEGAN_SLEPT, 60 * kMs), static_cast<__u32>(LT_IS_STALL))
      << "half is enough after a sleep";
  EXPECT_EQ(judge(25 * kMs - 1, 0, LT_BEGAN_SLEPT, 60 * kMs), static_cast<__u32>(LT_UNCONFIRMED));
  EXPECT_EQ(judge(25 * kMs, 0, LT_BEGAN_STOPPED, 60 * kMs), static_cast<__u32>(LT_IS_STALL));
  EXPECT_EQ(judge(45 * kMs, 10 * kMs, LT_BEGAN_ENTERED, 60 * kMs), static_cast<__u32>(LT_IS_STALL))
      << "half of the edge";
  EXPECT_EQ(judge(45 * kMs, 10 * kMs - 2, LT_BEGAN_ENTERED, 60 * kMs), static_cast<__u32>(LT_UNCONFIRMED));
}

TEST(MissedArrival, IsTheSchedulersStampWhereThatMakesSense) {
  constexpr uint64_t kOff = 1'000'000'000, kSkew = 19'000'000, kWaited = 40'000'000;
  const uint64_t stamp = kOff + kWaited - kSkew;
  EXPECT_EQ(lt_missed_arrival(kOff, kOff + kWaited + 5'000, stamp, kSkew), kOff + kWaited);
  // The clocks differ by a microsecond: it has just arrived. Taken for one that was never away, its wait of
  // 40 ms was uncertain running time, and the stall unconfirmed.
  EXPECT_EQ(lt_missed_arrival(kOff, kOff + kWaited - 900, stamp, kSkew), kOff + kWaited - 900);
  EXPECT_EQ(lt_missed_arrival(kOff, kOff + kWaited - LT_CLOCK_JITTER_NS - 1, stamp, kSkew), kOff);
  EXPECT_EQ(lt_missed_arrival(kOff, kOff + kWaited, kOff - kSkew - 1, kSkew), kOff);
  EXPECT_EQ(lt_missed_arrival(kOff, kOff + kWaited, stamp, 0), kOff);
}

TEST(Segments, TheLongestAreKept) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 200; ++round) {
    lt_iteration it{};
    std::vector<__u64> all;
    for (int i = 0; i < 20; ++i) {
      all.push_back(1 + random() % 1000);
      lt_keep_segment(&it, static_cast<__u64>(i) + 1, all.back());
    }
    std::vector<__u64> kept;
    for (const lt_segment& s : it.top) {
      kept.push_back(s.ns);
      EXPECT_EQ(all[s.capture - 1], s.ns);
    }
    std::sort(kept.rbegin(), kept.rend());
    std::sort(all.rbegin(), all.rend());
    all.resize(LT_MAX_TOP);
    EXPECT_EQ(kept, all);
  }
}

TEST(Waits, AreToldApartByCallFlagsAndKeyAndTheRestIsMerged) {
  lt_iteration it{};
  for (__u64 key = 0; key < LT_MAX_WAITS; ++key) lt_wait_add(lt_wait_find(&it, 0, 0, key), 10);
  EXPECT_EQ(it.nwaits, static_cast<__u32>(LT_MAX_WAITS));
  EXPECT_EQ(lt_wait_find(&it, 0, 0, 2), &it.waits[2]);
  EXPECT_EQ(it.nwaits, static_cast<__u32>(LT_MAX_WAITS));
  lt_wait* more = lt_wait_find(&it, 0, LT_WAIT_STOPPED, 2);
  EXPECT_EQ(more, &it.more) << "the table is full";
  EXPECT_EQ(lt_wait_add(more, 5), 1);
  EXPECT_EQ(lt_wait_find(&it, 7, 0, 99), &it.more);
  EXPECT_EQ(lt_wait_add(&it.more, 3), 0) << "not its longest";
  EXPECT_EQ(lt_wait_add(&it.more, 9), 1);
  EXPECT_EQ(it.more.count, 3u);
  EXPECT_EQ(it.more.total_ns, 17u);
  EXPECT_EQ(it.more.longest_ns, 9u);
}

TEST(Histogram, BucketsAreThoseThatUserSpaceReads) {
  const looptrace::HistogramShape shape{LT_HIST_MIN_BITS, LT_HIST_SUB_BITS, LT_HIST_MAX_BITS};
  EXPECT_EQ(shape.buckets(), static_cast<size_t>(LT_HIST_BUCKETS));
  std::mt19937_64 random(11);
  for (unsigned bit = 0; bit < 64; ++bit) {
    for (const __u64 v : {1ull << bit, (1ull << bit) - 1, (1ull << bit) + 1})
      EXPECT_EQ(lt_hist_bucket(v), shape.bucket(v)) << v;
  }
  for (int i = 0; i < 200'000; ++i) {
    const __u64 v = random() >> (random() % 64);
    ASSERT_EQ(lt_hist_bucket(v), shape.bucket(v)) << v;
    ASSERT_LE(v, shape.upper_bound(lt_hist_bucket(v)));
  }
}

TEST(Budget, PaysForABurstAndThenForItsRate) {
  __u64 paid = 0, now = 1000 * kMs;
  int granted = 0;
  for (int i = 0; i < 100; ++i) granted += lt_budget(&paid, now, 10 * kMs, 320 * kMs);
  EXPECT_EQ(granted, 32);
  for (int i = 0; i < 1000; ++i) granted += lt_budget(&paid, now += kMs, 10 * kMs, 320 * kMs);
  EXPECT_EQ(granted, 132) << "one in 10 ms";
  __u64 fresh = 0;
  EXPECT_EQ(lt_budget(&fresh, 5 * kMs, 10 * kMs, 320 * kMs), 0) << "nothing is saved up yet at boot";
}

}  // namespace

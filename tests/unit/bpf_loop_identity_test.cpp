// SPDX-License-Identifier: Apache-2.0
// Which poll is the loop's own, and which is a wait inside its iteration.
#include <gtest/gtest.h>

#include "loop_identity.h"

namespace {

constexpr __u64 kS = 1'000'000'000;

lt_poll_call epoll(int fd, __u64 sp) {
  lt_poll_call c{};
  c.kind = LT_POLL_EPOLL;
  c.fd = fd;
  c.sp = sp;
  c.ip = 0x1000;
  return c;
}

lt_poll_call poll_of(__u32 nfds, __u64 ip, __u64 sp) {
  lt_poll_call c{};
  c.kind = LT_POLL_POLL;
  c.fd = -1;
  c.nfds = nfds;
  c.fds = sp + 64;
  c.ip = ip;
  c.sp = sp;
  return c;
}

__u32 identify(lt_slot& s, const lt_poll_call& c, __u64 now) { return lt_identify(&s, &c, now); }

TEST(Identify, ARecurringEpollIsTheLoop) {
  lt_slot s{};
  EXPECT_EQ(identify(s, epoll(3, 9000), 1), static_cast<__u32>(LT_POLL_TAKEOVER));
  EXPECT_EQ(s.confirmed, 0u) << "seen first, it is only a candidate";
  EXPECT_EQ(identify(s, epoll(3, 9000), 2), static_cast<__u32>(LT_POLL_OWN));
  EXPECT_EQ(s.confirmed, 1u);
}

TEST(Identify, APollFurtherInIsNested) {
  lt_slot s{};
  identify(s, epoll(3, 9000), 1);
  identify(s, epoll(3, 9000), 2);
  EXPECT_EQ(identify(s, epoll(5, 8000), 3), static_cast<__u32>(LT_POLL_NESTED)) << "execSync's own epoll";
  EXPECT_EQ(identify(s, poll_of(1, 7, 8000), 4), static_cast<__u32>(LT_POLL_NESTED)) << "a client's poll";
  EXPECT_EQ(identify(s, epoll(3, 9000), 5), static_cast<__u32>(LT_POLL_OWN));
}

TEST(Identify, TheSameDescriptorIsTheSameLoopHoweverDeep) {
  lt_slot s{};
  identify(s, epoll(3, 9000), 1);
  identify(s, epoll(3, 9000), 2);
  EXPECT_EQ(identify(s, epoll(3, 5000), 3), static_cast<__u32>(LT_POLL_OWN));
  EXPECT_EQ(s.loop.call.sp, 9000u) << "its outermost depth stays";
}

TEST(Identify, AnAttachInMidStallIsMendedByTheOuterPoll) {
  lt_slot s{};
  for (__u64 i = 0; i < 50; ++i) identify(s, epoll(7, 5000), i);
  EXPECT_EQ(s.confirmed, 1u) << "the nested one recurs";
  EXPECT_EQ(identify(s, epoll(3, 9000), 60), static_cast<__u32>(LT_POLL_TAKEOVER));
  EXPECT_EQ(s.confirmed, 0u);
  EXPECT_EQ(identify(s, epoll(7, 5000), 61), static_cast<__u32>(LT_POLL_NESTED));
  EXPECT_EQ(identify(s, epoll(3, 9000), 62), static_cast<__u32>(LT_POLL_OWN));
  EXPECT_EQ(s.confirmed, 1u);
}

TEST(Identify, WhatAClientDoesHasToRecurForASecond) {
  lt_slot s{};
  EXPECT_EQ(identify(s, poll_of(1, 7, 9000), 0), static_cast<__u32>(LT_POLL_TAKEOVER));
  for (__u64 t = 1; t < 10; ++t) identify(s, poll_of(1, 7, 9000), t * kS / 10);
  EXPECT_EQ(s.confirmed, 0u);
  identify(s, poll_of(1, 7, 9000), kS);
  EXPECT_EQ(s.confirmed, 1u);
}

TEST(Identify, APollOnSeveralIsALoopAtItsSecondTime) {
  lt_slot s{};
  identify(s, poll_of(3, 7, 9000), 1);
  EXPECT_EQ(identify(s, poll_of(3, 7, 9000), 2), static_cast<__u32>(LT_POLL_OWN));
  EXPECT_EQ(s.confirmed, 1u);
  EXPECT_EQ(identify(s, poll_of(3, 8, 8000), 3), static_cast<__u32>(LT_POLL_NESTED)) << "another call site";
}

TEST(Identify, APollOnNothingIsASleep) {
  lt_slot s{};
  EXPECT_EQ(identify(s, poll_of(0, 7, 9000), 1), static_cast<__u32>(LT_POLL_NESTED));
  EXPECT_EQ(s.loop.seen, 0u);
}

TEST(Identify, FarAwayStacksSayNothingOfDepth) {
  lt_slot s{};
  identify(s, epoll(3, 0x7f00'0000'0000), 1);
  identify(s, epoll(3, 0x7f00'0000'0000), 2);
  EXPECT_EQ(identify(s, epoll(9, 0x7f00'0000'0000 + LT_STACK_SPAN), 3), static_cast<__u32>(LT_POLL_NESTED))
      << "a fiber's";
}

TEST(Identify, ADeeperPollDisplacesACandidateThatNeverCameAgain) {
  lt_slot s{};
  identify(s, epoll(3, 9000), 1);  // start-up, once
  __u32 verdict = LT_POLL_NESTED;
  __u64 now = 2;
  for (; now < 4 * kS && verdict == LT_POLL_NESTED; now += kS / 10)
    verdict = identify(s, epoll(5, 8000), now);
  EXPECT_EQ(verdict, static_cast<__u32>(LT_POLL_TAKEOVER));
  EXPECT_GE(now, LT_DISPLACE_NS);
  EXPECT_EQ(s.loop.call.fd, 5);
  EXPECT_EQ(s.confirmed, 1u);
}

lt_poll_call python_call(lt_poll_call c, __u64 code, __u32 depth) {
  c.code = code;
  c.depth = depth;
  return c;
}

TEST(Identify, PythonFunctionsInOneNativeFrameAreToldApart) {
  lt_slot s{};
  const lt_poll_call own = python_call(poll_of(3, 7, 9000), 0xc0de, 4);
  identify(s, own, 1);
  EXPECT_EQ(identify(s, own, 2), static_cast<__u32>(LT_POLL_OWN));
  EXPECT_EQ(identify(s, python_call(own, 0xbeef, 9), 3), static_cast<__u32>(LT_POLL_NESTED))
      << "subprocess, in a handler";
  EXPECT_EQ(identify(s, python_call(own, 0xc0de, 9), 4), static_cast<__u32>(LT_POLL_NESTED))
      << "selectors, in a handler of a loop that uses selectors too";
  EXPECT_EQ(identify(s, python_call(own, 0xbeef, 4), 5), static_cast<__u32>(LT_POLL_NESTED))
      << "another function that the loop calls";
  EXPECT_EQ(identify(s, own, 6), static_cast<__u32>(LT_POLL_OWN));
}

TEST(Identify, ASelectsLargeFrameIsNoDepth) {
  lt_slot s{};
  lt_poll_call own = python_call(poll_of(3, 7, 9000), 0xc0de, 4);
  own.kind = LT_POLL_SELECT;
  for (__u64 t = 0; t < 4; ++t) identify(s, own, t * kS);
  EXPECT_EQ(s.confirmed, 1u);
  EXPECT_EQ(identify(s, python_call(poll_of(2, 8, 50'000), 0xbeef, 9), 5 * kS),
            static_cast<__u32>(LT_POLL_NESTED));
  EXPECT_EQ(s.confirmed, 1u);
}

TEST(Identify, WhereAPollStandsInAProgramMayBecomeKnownLater) {
  lt_slot s{};
  const lt_poll_call nested = python_call(poll_of(3, 7, 9000), 0xbeef, 9);
  identify(s, poll_of(3, 7, 9000), 1);
  EXPECT_EQ(identify(s, nested, 2), static_cast<__u32>(LT_POLL_OWN)) << "not known yet";
  EXPECT_EQ(identify(s, python_call(nested, 0xc0de, 4), 3), static_cast<__u32>(LT_POLL_TAKEOVER));
  EXPECT_EQ(identify(s, nested, 4), static_cast<__u32>(LT_POLL_NESTED));
}

TEST(Identify, RelearnForgetsALoopThatEnded) {
  lt_slot s{};
  identify(s, epoll(3, 9000), 1);
  identify(s, epoll(3, 9000), 2);
  s.user_flags = LT_SLOT_RELEARN | LT_SLOT_SHARED_POLLER;
  EXPECT_EQ(identify(s, epoll(5, 8000), 3), static_cast<__u32>(LT_POLL_TAKEOVER));
  EXPECT_EQ(s.user_flags, static_cast<__u64>(LT_SLOT_SHARED_POLLER));
}

TEST(PollsItsSet, TellsAConfirmedLoopsOwnEpollWithoutItsRegisters) {
  lt_slot s{};
  identify(s, epoll(3, 9000), 1);
  EXPECT_FALSE(lt_polls_its_set(&s, LT_POLL_EPOLL, 3, 2)) << "a candidate only";
  identify(s, epoll(3, 9000), 2);
  EXPECT_TRUE(lt_polls_its_set(&s, LT_POLL_EPOLL, 3, 3));
  EXPECT_EQ(s.loop.last_ns, 3u);
  EXPECT_FALSE(lt_polls_its_set(&s, LT_POLL_EPOLL, 4, 4)) << "another set";
  EXPECT_FALSE(lt_polls_its_set(&s, LT_POLL_POLL, 3, 4));
  s.user_flags = LT_SLOT_RELEARN;
  EXPECT_FALSE(lt_polls_its_set(&s, LT_POLL_EPOLL, 3, 5));
}

TEST(PollsItsSet, LooksAgainNowAndThenForeverAfter) {
  lt_slot s{};
  identify(s, epoll(3, 5000), 1);
  identify(s, epoll(3, 5000), 2);
  const auto looks_within = [&](int polls) {
    for (int i = 0; i < polls; ++i) {
      if (!lt_polls_its_set(&s, LT_POLL_EPOLL, 3, 3)) return true;
    }
    return false;
  };
  EXPECT_TRUE(looks_within(LT_LOOK_EVERY));
  identify(s, epoll(3, 9000), 4);
  EXPECT_EQ(s.loop.call.sp, 9000u) << "the outermost depth is learned";
  EXPECT_TRUE(looks_within(LT_LOOK_EVERY));
  s.loop.seen = 0xfffffffe;
  EXPECT_TRUE(looks_within(2)) << "a count that is full does not wrap";
  EXPECT_EQ(s.loop.seen, 0xffffffffu);
}

TEST(Parked, IsAFutexWaitAtThePollsDepthOfASharedPoller) {
  lt_slot s{};
  s.loop.call.sp = 100'000;
  EXPECT_FALSE(lt_parked(&s, 202, 100'000)) << "not shared";
  s.user_flags = LT_SLOT_SHARED_POLLER;
  EXPECT_TRUE(lt_parked(&s, 202, 100'000));
  EXPECT_TRUE(lt_parked(&s, 202, 100'000 - LT_PARK_SPAN));
  EXPECT_FALSE(lt_parked(&s, 202, 100'000 - LT_PARK_SPAN - 1)) << "a lock inside a task";
  EXPECT_FALSE(lt_parked(&s, 230, 100'000));
}

}  // namespace

// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "record/cause.h"

namespace looptrace {
namespace {

struct Row {
  const char* syscall;
  const char* target;  // kind; "" = not known
  Cause cause;
  Confidence confidence;
};

class WaitTable : public testing::TestWithParam<Row> {};

TEST_P(WaitTable, Cause) {
  const Row& row = GetParam();
  WaitFacts facts;
  facts.syscall = row.syscall;
  facts.arg0 = facts.arg1 = 5;
  if (*row.target) {
    facts.target.emplace();
    facts.target->kind = row.target;
  }
  const Verdict verdict = judge_wait(facts);
  EXPECT_STREQ(cause_name(verdict.cause), cause_name(row.cause)) << row.syscall << " on " << row.target;
  EXPECT_STREQ(confidence_name(verdict.confidence), confidence_name(row.confidence))
      << row.syscall << " on " << row.target;
  EXPECT_TRUE(verdict.detail.starts_with(row.syscall)) << verdict.detail;
}

constexpr auto kCertain = Confidence::certain;
constexpr auto kInferred = Confidence::inferred;
constexpr auto kUnknown = Confidence::unknown;

const Row kRows[] = {
    {"nanosleep", "", Cause::sleep, kCertain},
    {"clock_nanosleep", "", Cause::sleep, kCertain},
    {"poll", "timerfd", Cause::sleep, kCertain},
    {"read", "timerfd", Cause::sleep, kCertain},
    {"futex", "", Cause::lock, kCertain},
    {"futex", "futex", Cause::lock, kCertain},
    {"futex_waitv", "", Cause::lock, kCertain},
    {"flock", "file", Cause::lock, kCertain},
    {"semop", "", Cause::lock, kCertain},
    {"msgrcv", "", Cause::lock, kCertain},
    {"mq_timedreceive", "", Cause::lock, kCertain},
    {"read", "eventfd", Cause::lock, kInferred},
    {"wait4", "process", Cause::child, kCertain},
    {"waitid", "", Cause::child, kCertain},
    {"vfork", "", Cause::child, kCertain},
    {"clone", "", Cause::child, kCertain},
    {"clone3", "", Cause::child, kCertain},
    {"poll", "pidfd", Cause::child, kCertain},
    {"read", "file", Cause::file, kCertain},
    {"write", "file", Cause::file, kCertain},
    {"pread64", "file", Cause::file, kCertain},
    {"sendfile", "file", Cause::file, kCertain},
    {"fsync", "", Cause::file, kCertain},
    {"fdatasync", "file", Cause::file, kCertain},
    {"openat", "", Cause::file, kCertain},
    {"newfstatat", "", Cause::file, kCertain},
    {"statx", "", Cause::file, kCertain},
    {"getdents64", "directory", Cause::file, kCertain},
    {"read", "device", Cause::file, kCertain},
    {"io_uring_enter", "io_uring", Cause::file, kInferred},
    {"read", "pipe", Cause::pipe, kCertain},
    {"write", "pipe", Cause::pipe, kCertain},
    {"poll", "pipe", Cause::pipe, kCertain},
    {"splice", "pipe", Cause::pipe, kCertain},
    {"recvfrom", "tcp", Cause::network, kCertain},
    {"recvmsg", "", Cause::network, kCertain},
    {"sendto", "udp", Cause::network, kCertain},
    {"connect", "tcp", Cause::network, kCertain},
    {"accept4", "tcp", Cause::network, kCertain},
    {"read", "tcp", Cause::network, kCertain},
    {"read", "unix", Cause::network, kCertain},
    {"poll", "tcp", Cause::network, kCertain},
    {"poll", "unix", Cause::network, kCertain},
    {"ppoll", "udp", Cause::network, kCertain},
    {"select", "tcp", Cause::network, kCertain},
    {"sendfile", "tcp", Cause::network, kCertain},
    {"recvmsg", "netlink", Cause::network, kCertain},
    {"epoll_wait", "epoll", Cause::network, kInferred},
    {"epoll_pwait", "", Cause::network, kInferred},
    {"munmap", "", Cause::page_fault, kInferred},
    {"poll", "", Cause::other, kUnknown},
    {"read", "", Cause::other, kUnknown},
    {"fcntl", "file", Cause::file, kCertain},
    {"rt_sigtimedwait", "", Cause::other, kUnknown},
    {"io_uring_enter", "", Cause::other, kUnknown},
    {"syscall_999", "", Cause::other, kUnknown},
};

INSTANTIATE_TEST_SUITE_P(All, WaitTable, testing::ValuesIn(kRows));

Verdict judge(WaitFacts facts) { return judge_wait(facts); }

TEST(WaitCause, PollOnNothingIsASleep) {
  WaitFacts facts;
  facts.syscall = "poll";
  EXPECT_EQ(judge_wait(facts).cause, Cause::sleep);
  facts.arg1 = 1;
  EXPECT_EQ(judge_wait(facts).cause, Cause::other);
  facts.syscall = "select";
  facts.arg0 = 0;
  EXPECT_EQ(judge_wait(facts).cause, Cause::sleep);
  facts.arg0 = 12;
  EXPECT_EQ(judge_wait(facts).cause, Cause::other);
}

TEST(WaitCause, TheGlobalLockIsNoOrdinaryLock) {
  EXPECT_EQ(judge({.syscall = "futex", .arg0 = 0x10, .global_lock = true}).cause, Cause::gil);
}

TEST(WaitCause, ARuntimesSleepIsNoLock) {
  const Verdict verdict = judge({.syscall = "futex", .arg0 = 0x10, .runtime_sleep = true});
  EXPECT_EQ(verdict.cause, Cause::sleep);
  EXPECT_EQ(verdict.confidence, Confidence::inferred);
}

TEST(WaitCause, ACollectorThatWaitsForItsHelpersIsNoLock) {
  EXPECT_EQ(judge({.syscall = "futex", .arg0 = 0x10, .collector = true}).cause, Cause::gc);
  EXPECT_EQ(judge({.syscall = "futex", .arg0 = 0x10}).cause, Cause::lock);
  EXPECT_EQ(judge({.syscall = "fsync", .collector = true}).cause, Cause::file)
      << "it may do other things, too";
}

TEST(WaitCause, APollInARuntimesRunOfAChildWaitsForThatChild) {
  const Verdict verdict = judge({.syscall = "epoll_pwait", .child_wait = true});
  EXPECT_EQ(verdict.cause, Cause::child);
  EXPECT_EQ(verdict.confidence, Confidence::inferred);
  EXPECT_EQ(judge({.syscall = "epoll_pwait"}).cause, Cause::network);
  EXPECT_EQ(judge({.syscall = "fsync", .child_wait = true}).cause, Cause::file);
}

TEST(WaitCause, LocksOfFiles) {
  EXPECT_EQ(judge({.syscall = "fcntl", .arg1 = 7}).cause, Cause::lock);   // F_SETLKW
  EXPECT_EQ(judge({.syscall = "fcntl", .arg1 = 38}).cause, Cause::lock);  // F_OFD_SETLKW
  EXPECT_EQ(judge({.syscall = "fcntl", .arg1 = 1}).cause, Cause::other);
}

TEST(WaitCause, FlagsOverruleTheCall) {
  EXPECT_EQ(judge({.syscall = "read", .stopped = true}).cause, Cause::stopped);
  EXPECT_EQ(judge({.stopped = true}).cause, Cause::stopped);
  const Verdict fault = judge({.page_fault = true, .uninterruptible = true});
  EXPECT_EQ(fault.cause, Cause::page_fault);
  EXPECT_EQ(fault.confidence, Confidence::certain);
  EXPECT_EQ(fault.detail, "page fault");
  EXPECT_EQ(judge({}).cause, Cause::other);
}

TEST(WaitCause, KernelFunctionsOverruleTheCall) {
  const auto with = [](std::string_view syscall, std::string_view function) {
    WaitFacts facts;
    facts.syscall = syscall;
    facts.kernel_functions = {"schedule", function, "do_syscall_64"};
    return judge_wait(facts);
  };
  EXPECT_EQ(with("read", "shrink_node").cause, Cause::page_fault);
  EXPECT_EQ(with("read", "shrink_node").detail, "memory reclaim in read");
  EXPECT_EQ(with("write", "mem_cgroup_handle_over_high").detail, "memory reclaim in write");
  EXPECT_EQ(with("read", "try_to_free_pages").confidence, Confidence::inferred);
  EXPECT_EQ(with("read", "do_swap_page").detail, "swapped-out memory in read");
  EXPECT_EQ(with("read", "exc_page_fault").detail, "page fault in read");
  EXPECT_EQ(with("write", "balance_dirty_pages").cause, Cause::file);
  EXPECT_EQ(with("write", "balance_dirty_pages").detail, "writeback throttling in write");
  EXPECT_EQ(with("clone", "wait_for_vfork_done").cause, Cause::child);
  EXPECT_EQ(with("ioctl", "io_schedule").cause, Cause::file);
  EXPECT_EQ(with("futex", "do_signal_stop").cause, Cause::stopped);
  EXPECT_EQ(with("futex", "futex_wait_queue").cause, Cause::lock);
}

TEST(WaitCause, UninterruptibleOnSomethingUnknownIsStorage) {
  const Verdict verdict = judge({.syscall = "ioctl", .uninterruptible = true});
  EXPECT_EQ(verdict.cause, Cause::file);
  EXPECT_EQ(verdict.confidence, Confidence::inferred);
}

TEST(WaitDetail, NamesTheTargetAndTheWaker) {
  WaitTarget tcp;
  tcp.kind = "tcp";
  tcp.fd = 8;
  tcp.local = "127.0.0.1:40112";
  tcp.peer = "127.0.0.1:5432";
  EXPECT_EQ(judge({.syscall = "poll", .arg1 = 1, .target = tcp, .woken_by = Peer{77, 77, "postgres"}}).detail,
            "poll on tcp 127.0.0.1:5432");
  tcp.kind = "udp";
  tcp.peer = "10.0.0.2:53";
  EXPECT_EQ(judge({.syscall = "poll", .arg1 = 1, .target = tcp}).detail, "poll on udp 10.0.0.2:53 (DNS)");
  WaitTarget file;
  file.kind = "file";
  file.path = "/var/x";
  EXPECT_EQ(judge({.syscall = "read", .target = file}).detail, "read on file /var/x");
  WaitTarget pipe;
  pipe.kind = "pipe";
  pipe.fd = 5;
  EXPECT_EQ(judge({.syscall = "read", .target = pipe}).detail, "read on pipe fd 5");
  EXPECT_EQ(judge({.syscall = "futex", .arg0 = 0x7f10, .woken_by = Peer{7100, 7159, "db-pool"}}).detail,
            "futex 0x7f10, woken by db-pool[7159]");
  EXPECT_EQ(judge({.syscall = "wait4", .arg0 = 812}).detail, "wait4 on pid 812");
  EXPECT_EQ(judge({.syscall = "wait4", .arg0 = 0xffffffffffffffff}).detail, "wait4");
  EXPECT_EQ(judge({.syscall = "waitid", .arg0 = 1, .arg1 = 9}).detail, "waitid on pid 9");
  EXPECT_EQ(judge({.syscall = "waitid", .arg0 = 0, .arg1 = 9}).detail, "waitid");
  EXPECT_EQ(judge({.syscall = "clock_nanosleep"}).detail, "clock_nanosleep");
}

Wait wait(Cause cause, uint64_t duration_ns, const char* syscall) {
  Wait w;
  w.cause = cause;
  w.duration_ns = duration_ns;
  w.syscall = syscall;
  return w;
}

Stall parts(uint64_t on_cpu, uint64_t runqueue, uint64_t blocked) {
  Stall stall;
  stall.on_cpu_ns = on_cpu;
  stall.runqueue_ns = runqueue;
  stall.blocked_ns = blocked;
  stall.duration_ns = on_cpu + runqueue + blocked;
  return stall;
}

Stack on_cpu(uint64_t weight_ns, const char* function) {
  Stack stack;
  stack.weight_ns = weight_ns;
  stack.frames.resize(1);
  stack.frames[0].function = function;
  return stack;
}

TEST(StallCause, TheLargestPartDecides) {
  EXPECT_EQ(judge_stall(parts(5, 3, 2), {}).cause, Cause::cpu);
  EXPECT_EQ(judge_stall(parts(3, 5, 2), {}).cause, Cause::runqueue);
  Stall stall = parts(3, 2, 5);
  stall.waits = {wait(Cause::file, 5, "fsync")};
  EXPECT_EQ(judge_stall(stall, {}).cause, Cause::file);
  EXPECT_EQ(judge_stall(Stall(), {}).cause, Cause::cpu);
  stall = parts(4, 0, 4);
  stall.waits = {wait(Cause::file, 4, "fsync")};
  EXPECT_EQ(judge_stall(stall, {}).cause, Cause::file) << "of equal parts the one that names most";
}

TEST(StallCause, WaitsOfOneCauseAddUp) {
  Stall stall = parts(1, 0, 100);
  stall.waits = {wait(Cause::file, 40, "fsync"), wait(Cause::network, 25, "poll"),
                 wait(Cause::network, 30, "connect")};
  const Verdict verdict = judge_stall(stall, {});
  EXPECT_EQ(verdict.cause, Cause::network);
  EXPECT_EQ(verdict.detail, "connect");
  EXPECT_EQ(verdict.confidence, Confidence::certain);
}

TEST(StallCause, JudgedWaitsCountBeforeTheirOwnCauses) {
  Stall stall = parts(1, 0, 10);
  stall.waits = {wait(Cause::other, 10, "read")};
  const Verdict judged[] = {{Cause::page_fault, Confidence::inferred, "memory reclaim in read"}};
  const Verdict verdict = judge_stall(stall, {.waits = judged});
  EXPECT_EQ(verdict.cause, Cause::page_fault);
  EXPECT_EQ(verdict.confidence, Confidence::inferred);
  EXPECT_EQ(verdict.detail, "memory reclaim in read");
}

TEST(StallCause, BlockedOnWhatWasNotSeenIsUnknown) {
  EXPECT_EQ(judge_stall(parts(0, 0, 10), {}).cause, Cause::other);
  EXPECT_EQ(judge_stall(parts(0, 0, 10), {}).confidence, Confidence::unknown);
  Stall stall = parts(0, 0, 10);
  stall.waits = {wait(Cause::other, 0, "read")};
  EXPECT_EQ(judge_stall(stall, {}).detail, "read");
}

TEST(StallCause, ThrottledWhenMostOfTheQueueTimeWas) {
  const Stall stall = parts(1, 10, 1);
  EXPECT_EQ(judge_stall(stall, {.throttled_ns = 5}).cause, Cause::runqueue);
  EXPECT_EQ(judge_stall(stall, {.throttled_ns = 6}).cause, Cause::throttled);
  EXPECT_EQ(judge_stall(stall, {.throttled_ns = 10}).cause, Cause::throttled);
}

TEST(StallCause, RunqueueNamesWhoRan) {
  Stall stall = parts(1, 10, 1);
  stall.preempted_by = Peer{40, 44, "stress"};
  EXPECT_EQ(judge_stall(stall, {}).detail, "runnable, but not given a CPU while stress[44] ran");
}

// A Python object's __del__ that computes is the program's own code, whoever calls it.
TEST(StallCause, WhatTheCollectorCallsIsNotTheCollector) {
  Stall stall = parts(100, 0, 0);
  stall.stacks = {on_cpu(100, "gc_collect_main")};
  const auto is_gc = [](const Frame& frame) { return frame.function == "gc_collect_main"; };
  EXPECT_EQ(judge_stall(stall, {.is_gc = is_gc}).cause, Cause::gc);
  Frame finalizer;
  finalizer.function = "Node.__del__", finalizer.kind = FrameKind::python;
  stall.stacks[0].frames.insert(stall.stacks[0].frames.begin(), finalizer);
  EXPECT_EQ(judge_stall(stall, {.is_gc = is_gc}).cause, Cause::cpu);
}

TEST(StallCause, CollectorFramesOnMostSamples) {
  Stall stall = parts(100, 0, 0);
  stall.stacks = {on_cpu(60, "gc_collect_main"), on_cpu(40, "work")};
  const auto is_gc = [](const Frame& frame) { return frame.function == "gc_collect_main"; };
  EXPECT_EQ(judge_stall(stall, {.is_gc = is_gc}).cause, Cause::gc);
  EXPECT_EQ(judge_stall(stall, {.is_gc = is_gc}).confidence, Confidence::inferred);
  EXPECT_EQ(judge_stall(stall, {}).cause, Cause::cpu);
  stall.stacks[0].weight_ns = 40;
  EXPECT_EQ(judge_stall(stall, {.is_gc = is_gc}).cause, Cause::cpu) << "half is not most";
  stall.stacks[0].state = StackState::blocked;
  EXPECT_EQ(judge_stall(stall, {.is_gc = is_gc}).cause, Cause::cpu);
}

TEST(StallCause, CpuNamesTheHottestFunction) {
  Stall stall = parts(100, 0, 0);
  stall.stacks = {on_cpu(45, "encode"), on_cpu(30, "hash"), on_cpu(25, "hash")};
  EXPECT_EQ(judge_stall(stall, {}).detail, "55 % in hash");
  EXPECT_EQ(judge_stall(stall, {}).confidence, Confidence::certain);
}

// Of a stripped program, what called its code has a name at best.
TEST(StallCause, CodeWithoutANameIsNotItsCallersInAnotherFile) {
  const auto frame = [](const char* function, const char* module) {
    Frame f;
    f.function = function;
    f.module = module;
    return f;
  };
  Stall stall = parts(100, 0, 0);
  stall.stacks = {on_cpu(100, "")};
  const auto detail = [&](std::vector<Frame> frames) {
    stall.stacks[0].frames = std::move(frames);
    return judge_stall(stall, {}).detail;
  };
  EXPECT_EQ(detail({frame("", "python3.11"), frame("PyObject_Vectorcall", "python3.11")}),
            "100 % in PyObject_Vectorcall");
  EXPECT_EQ(detail({frame("", "bun"), frame("", ""), frame("__libc_start_main", "libc.so.6")}),
            "100 % in bun");
  EXPECT_EQ(detail({frame("", ""), frame("__libc_start_main", "libc.so.6")}), "");
  EXPECT_EQ(detail({frame("", "bun")}), "100 % in bun");
}

}  // namespace
}  // namespace looptrace

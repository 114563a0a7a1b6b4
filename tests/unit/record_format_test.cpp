// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/syscall.h>

#include "record/format.h"
#include "record/histogram.h"
#include "record/syscalls.h"

namespace looptrace {
namespace {

TEST(Time, Rfc3339InUtcWithNineDigits) {
  EXPECT_EQ(format_time(1'795'424'400'123'456'789), "2026-11-23T09:00:00.123456789Z");
  EXPECT_EQ(format_time(0), "1970-01-01T00:00:00.000000000Z");
  EXPECT_EQ(format_time(951'782'400'000'000'001), "2000-02-29T00:00:00.000000001Z");
}

TEST(Duration, ThreeDigitsCutNotRounded) {
  const std::pair<uint64_t, const char*> rows[] = {{0, "0 ns"},
                                                   {999, "999 ns"},
                                                   {1'000, "1 us"},
                                                   {850'000, "850 us"},
                                                   {999'999, "999 us"},
                                                   {1'250'000, "1.25 ms"},
                                                   {1'000'000, "1 ms"},
                                                   {50'000'000, "50 ms"},
                                                   {52'340'000, "52.3 ms"},
                                                   {205'585'000, "205 ms"},
                                                   {1'200'000'000, "1.20 s"},
                                                   {1'009'999'999, "1.00 s"},
                                                   {12'340'000'000, "12.3 s"},
                                                   {30'000'000'000, "30 s"},
                                                   {59'999'999'999, "59.9 s"},
                                                   {60'000'000'000, "1 min 0 s"},
                                                   {123'000'000'000, "2 min 3 s"},
                                                   {3'720'000'000'000, "1 h 2 min"},
                                                   {UINT64_MAX, "5124095 h 34 min"}};
  for (const auto& [ns, text] : rows) EXPECT_EQ(format_duration(ns), text);
}

TEST(FrameText, NameAndPlace) {
  Frame frame;
  EXPECT_EQ(format_frame(frame), "");
  frame.module = "server";
  frame.offset = 0x11f8a0;
  EXPECT_EQ(format_frame(frame), "server+0x11f8a0");
  frame.function = "handle";
  EXPECT_EQ(format_frame(frame), "handle (server+0x11f8a0)");
  frame.file = "/srv/app.py";
  frame.line = 7;
  EXPECT_EQ(format_frame(frame), "handle (app.py:7)");
}

Stall sample() {
  Stall stall;
  stall.process.pid = stall.thread_id = 101;
  stall.process.comm = stall.thread_name = "server";
  stall.threshold_ns = 50'000'000;
  stall.duration_ns = 205'585'000;
  stall.cause = Cause::network;
  stall.cause_detail = "poll on tcp 127.0.0.1:5432";
  Frame culprit;
  culprit.function = "run_query";
  culprit.file = "/srv/app.py";
  culprit.line = 7;
  stall.culprit = culprit;
  return stall;
}

TEST(Message, TheContractsExample) {
  EXPECT_EQ(
      stall_message(sample()),
      "server[101] loop stalled 205 ms: network wait in poll on 127.0.0.1:5432, at run_query (app.py:7)");
}

TEST(Message, ByCauseAndState) {
  Stall stall = sample();
  stall.culprit.reset();
  const auto says = [&](Cause cause, const char* detail) {
    stall.cause = cause;
    stall.cause_detail = detail;
    const std::string text = stall_message(stall);
    return text.substr(text.find(": ") + 2);
  };
  EXPECT_EQ(says(Cause::cpu, "83 % in hash"), "on CPU, 83 % in hash");
  EXPECT_EQ(says(Cause::cpu, ""), "on CPU");
  EXPECT_EQ(says(Cause::lock, "futex 0x10, woken by db[7]"), "lock wait in futex 0x10, woken by db[7]");
  EXPECT_EQ(says(Cause::sleep, "clock_nanosleep"), "sleep in clock_nanosleep");
  EXPECT_EQ(says(Cause::child, "wait4 on pid 812"), "wait for a child process in wait4 on pid 812");
  EXPECT_EQ(says(Cause::page_fault, "page fault on file /x"), "page fault on file /x");
  EXPECT_EQ(says(Cause::page_fault, "memory reclaim in read"), "page fault, memory reclaim in read");
  EXPECT_EQ(says(Cause::runqueue, "runnable, but not given a CPU while stress[44] ran"),
            "runnable, but not given a CPU while stress[44] ran");
  EXPECT_EQ(says(Cause::other, ""), "wait");

  stall = sample();
  stall.state = StallState::open;
  EXPECT_TRUE(stall_message(stall).starts_with("server[101] loop still stalled after 205 ms: "));
  stall.state = StallState::closed;
  stall.ended_by = "kill";
  EXPECT_TRUE(stall_message(stall).starts_with("server[101] loop stalled 205 ms until it was killed: "));
  stall.ended_by.clear();
  stall.thread_id = 105;
  stall.thread_name = "io-2";
  EXPECT_TRUE(stall_message(stall).starts_with("server[101] thread io-2[105] loop stalled 205 ms: "));
}

TEST(Severity, ByThresholdsAndASecond) {
  Stall stall = sample();
  const auto at = [&](uint64_t duration_ms, uint64_t threshold_ms) {
    stall.duration_ns = duration_ms * 1'000'000;
    stall.threshold_ns = threshold_ms * 1'000'000;
    return std::string(severity_name(severity_of(stall)));
  };
  EXPECT_EQ(at(99, 50), "info");
  EXPECT_EQ(at(100, 50), "warn");
  EXPECT_EQ(at(499, 50), "warn");
  EXPECT_EQ(at(500, 50), "error");
  EXPECT_EQ(at(999, 900), "info");
  EXPECT_EQ(at(1000, 900), "error");
}

TEST(Summary, OneLine) {
  SummaryRecord summary;
  summary.elapsed_ns = 30'000'000'000;
  summary.loops = 3;
  summary.stalls_seen = summary.stalls_emitted = 41;
  EXPECT_EQ(summary_message(summary), "41 stalls on 3 loops in 30 s");
  summary.loops = summary.stalls_seen = 1;
  summary.stalls_emitted = 0;
  summary.dropped["capture_budget"] = 2;
  EXPECT_EQ(summary_message(summary), "1 stall on 1 loop in 30 s, 0 written; dropped 2 (capture_budget)");
}

TEST(Histogram, BucketsCoverEveryValueInOrder) {
  const HistogramShape shape;
  EXPECT_EQ(shape.buckets(), 258u);
  EXPECT_EQ(shape.bucket(0), 0u);
  EXPECT_EQ(shape.bucket(255), 0u);
  EXPECT_EQ(shape.bucket(256), 1u);
  EXPECT_EQ(shape.bucket(287), 1u);
  EXPECT_EQ(shape.bucket(288), 2u);
  EXPECT_EQ(shape.bucket((uint64_t{1} << 40) - 1), 256u);
  EXPECT_EQ(shape.bucket(uint64_t{1} << 40), 257u);
  EXPECT_EQ(shape.bucket(UINT64_MAX), 257u);
  for (size_t i = 0; i + 1 < shape.buckets(); ++i) {
    const uint64_t last = shape.upper_bound(i);
    EXPECT_EQ(shape.bucket(last), i);
    EXPECT_EQ(shape.bucket(last + 1), i + 1);
  }
}

TEST(Histogram, PercentilesByNearestRank) {
  const HistogramShape shape;
  std::vector<uint32_t> counts(shape.buckets());
  for (uint64_t v = 1; v <= 1000; ++v) ++counts[shape.bucket(v * 1000)];
  const auto p = percentiles(shape, counts, 1'000'000);
  ASSERT_TRUE(p);
  const auto near = [](uint64_t got, uint64_t want) { return got >= want && got <= want + want / 8; };
  EXPECT_TRUE(near(p->p50, 500'000)) << p->p50;
  EXPECT_TRUE(near(p->p90, 900'000)) << p->p90;
  EXPECT_TRUE(near(p->p99, 990'000)) << p->p99;
  EXPECT_EQ(p->p999, 1'000'000u) << "never above the maximum";
  EXPECT_EQ(p->max, 1'000'000u);
}

TEST(Histogram, Edges) {
  const HistogramShape shape;
  std::vector<uint64_t> counts(shape.buckets());
  EXPECT_FALSE(percentiles(shape, counts, 5));
  counts[0] = 1;
  EXPECT_EQ(percentiles(shape, counts, 7)->p50, 7u);
  EXPECT_EQ(percentiles(shape, counts, 0)->max, 255u);
  EXPECT_EQ(percentiles(shape, counts, 1'000'000)->max, 255u) << "the maximum of an earlier interval";
  counts.assign(shape.buckets(), 0);
  counts.back() = UINT64_MAX / 2;
  EXPECT_EQ(percentiles(shape, counts, 0)->p50, uint64_t{1} << 40);
  EXPECT_EQ(percentiles(shape, counts, UINT64_MAX - 1)->p999, UINT64_MAX - 1);
}

TEST(Syscalls, NamesByNumber) {
  const std::pair<int, const char*> rows[] = {{SYS_read, "read"},
                                              {SYS_futex, "futex"},
                                              {SYS_wait4, "wait4"},
                                              {SYS_clock_nanosleep, "clock_nanosleep"},
                                              {SYS_ppoll, "ppoll"},
                                              {SYS_epoll_pwait, "epoll_pwait"},
                                              {SYS_openat, "openat"},
                                              {SYS_fsync, "fsync"},
                                              {SYS_recvfrom, "recvfrom"},
                                              {SYS_connect, "connect"},
                                              {SYS_statx, "statx"},
                                              {SYS_rseq, "rseq"},
                                              {SYS_io_uring_enter, "io_uring_enter"},
                                              {SYS_clone3, "clone3"},
                                              {SYS_epoll_pwait2, "epoll_pwait2"},
                                              {SYS_futex_waitv, "futex_waitv"},
                                              {SYS_pselect6, "pselect6"},
                                              {SYS_sendmmsg, "sendmmsg"}};
  for (const auto& [nr, name] : rows) EXPECT_EQ(syscall_name(nr), name);
#ifdef __x86_64__
  EXPECT_EQ(syscall_name(SYS_poll), "poll");
  EXPECT_EQ(syscall_name(SYS_epoll_wait), "epoll_wait");
  EXPECT_EQ(syscall_name(SYS_newfstatat), "newfstatat");
#endif
  EXPECT_EQ(syscall_name(454), "futex_wake");
  EXPECT_EQ(syscall_name(400), "syscall_400");
  EXPECT_EQ(syscall_name(5000), "syscall_5000");
  EXPECT_EQ(syscall_name(-1), "");
}

}  // namespace
}  // namespace looptrace

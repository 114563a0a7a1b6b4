// SPDX-License-Identifier: Apache-2.0
// Victims that stall a known number of times: exactly so many records, each with its exact ledger.
#include <unistd.h>

#include <map>

#include "harness.h"

namespace looptrace::test {
namespace {

struct Case {
  const char* victim;
  const char* hook;
  const char* cause;  // "" = not checked
  std::vector<std::string> args;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.victim << " --hook " << c.hook; }

class Stalls : public testing::TestWithParam<Case> {};

TEST_P(Stalls, AreReportedExactly) {
  LOOPTRACE_NEEDS_ROOT();
  const Case& c = GetParam();
  std::vector<std::string> args = {"--count",  "10", "--stall-ms", "80",
                                   "--gap-ms", "60", "--delay-ms", "20000"};
  args.insert(args.end(), c.args.begin(), c.args.end());
  Victim victim(c.victim, args);
  if (!victim.ready()) {
    (void)victim.truth();
    if (victim.skipped()) GTEST_SKIP() << "this kernel refuses what " << c.victim << " needs";
    FAIL() << "the victim did not start: " << victim.process().errors();
  }
  Trace trace({"--pid", std::to_string(victim.pid()), "--hook", c.hook, "--threshold", "50ms"});
  ASSERT_TRUE(trace.started());
  if (c.args.empty() || c.args[0] != "--delay-ms") victim.begin();
  const auto truth = victim.truth();
  if (victim.skipped()) GTEST_SKIP() << "this kernel refuses what " << c.victim << " needs";
  EXPECT_EQ(trace.stop(), 0) << trace.process().errors();
  const auto stalls = of_pid(trace.stalls(), victim.pid());
  expect_exactly(stalls, truth);
  if (*c.cause) {
    for (const json& s : stalls) EXPECT_EQ(s["cause"]["kind"], c.cause) << s.dump();
  }
}

// A record for each stall and no others, but for what waits for its CPU. Beside others that may befall an
// iteration before and after its stall, too, and one without.
void expect_each(const std::vector<json>& stalls, const std::vector<json>& truth) {
  constexpr uint64_t kSlackNs = 5'000'000;
  std::map<std::string, uint64_t> wanted;  // by record
  for (const json& t : truth) {
    const json* s = overlapping(t, stalls);
    if (!s) {
      ADD_FAILURE() << "missed: " << t.dump();
      continue;
    }
    const uint64_t took = t["end_ns"].get<uint64_t>() - t["start_ns"].get<uint64_t>();
    EXPECT_TRUE(wanted.emplace((*s)["id"], took).second) << "two stalls in one: " << s->dump();
    EXPECT_GE((*s)["duration_ns"].get<uint64_t>() + kSlackNs, took) << s->dump();
  }
  for (const json& s : stalls) {
    expect_sum(s);
    const json& parts = s["time_ns"];
    EXPECT_LE(parts["on_cpu"].get<uint64_t>() + parts["blocked"].get<uint64_t>(),
              wanted[s["id"]] + kSlackNs + s.value("start_uncertain_ns", uint64_t{0}))
        << "true " << wanted[s["id"]] << ", record " << s.dump();
  }
}

// Without a hook a stall is sure only if the probe came in the first half of the threshold; but what was
// suspect a moment ago has just had its probe detached, and the kernel takes up to 20 ms to attach it again.
TEST(Bursts, OfStallsJustOverAShortThresholdLoseNone) {
  LOOPTRACE_NEEDS_ROOT();
  for (const auto& [threshold, stall] : {std::pair{"10ms", "12"}, {"20ms", "23"}, {"50ms", "56"}}) {
    SCOPED_TRACE(threshold);
    Victim victim("epoll_cpu",
                  {"--count", "40", "--stall-ms", stall, "--gap-ms", "40", "--delay-ms", "20000"});
    Trace trace({"--pid", std::to_string(victim.pid()), "--threshold", threshold});
    ASSERT_TRUE(trace.started());
    victim.begin();
    const auto truth = victim.truth();
    EXPECT_EQ(trace.stop(), 0) << trace.process().errors();
    EXPECT_EQ(truth.size(), 40u);
    // The first finds no probe that stays, and at the shortest threshold all has to go well for it. How exact
    // each is is asked below.
    auto stalls = of_pid(trace.stalls(), victim.pid());
    const uint64_t warm = truth.at(0)["end_ns"];
    std::erase_if(stalls, [&](const json& s) { return start_of(s) < warm; });
    expect_each(stalls, {truth.begin() + 1, truth.end()});
  }
}

// Many short iterations look like a long one where no hook is attached: 200 stacks a second, all thrown away.
TEST(Saturated, LoopsCostFewStacks) {
  LOOPTRACE_NEEDS_ROOT();
  Victim victim("epoll_busy_short", {"--delay-ms", "20000", "--work-us", "200"});
  Trace trace({"--pid", std::to_string(victim.pid()), "--threshold", "50ms"});
  ASSERT_TRUE(trace.started());
  usleep(2'000'000);
  EXPECT_EQ(trace.stop(), 0) << trace.process().errors();
  // Beside others an iteration may wait long for its CPU: such a stall is true, and of one iteration's work.
  for (const json& s : trace.stalls()) {
    const json& t = s["time_ns"];
    EXPECT_LT(t["on_cpu"].get<uint64_t>() + t["blocked"].get<uint64_t>(), 2'000'000u) << s.dump();
  }
  const auto summary = trace.summary();
  ASSERT_TRUE(summary);
  const json stacks = summary->value("stacks", json::object());
  EXPECT_LT(stacks.value("taken", 0), 100) << summary->dump();
}

// Their polls are all seen soon after they have become saturated: what is just over the threshold is certain,
// too.
TEST(Saturated, LoopsLoseNoStallJustOverTheThreshold) {
  LOOPTRACE_NEEDS_ROOT();
  for (const std::string flavour : {"cpu", "sleep"}) {
    SCOPED_TRACE(flavour);
    Victim victim("epoll_busy_stall", {"--count", "40", "--stall-ms", "22", "--gap-ms", "60", "--delay-ms",
                                       "20000", "--flavour", flavour});
    Trace trace({"--pid", std::to_string(victim.pid()), "--threshold", "20ms"});
    ASSERT_TRUE(trace.started());
    usleep(1'500'000);
    victim.begin();
    const auto truth = victim.truth();
    EXPECT_EQ(trace.stop(), 0) << trace.process().errors();
    EXPECT_EQ(truth.size(), 40u);
    expect_each(of_pid(trace.stalls(), victim.pid()), truth);
  }
}

// A poll that takes 1 to 3 ms of CPU, with thousands of ready descriptors: nothing that runs between two
// polls.
TEST(Polls, ThatTakeLongThemselvesAreNoStalls) {
  LOOPTRACE_NEEDS_ROOT();
  for (const std::string hook : {"always", "auto"}) {
    Victim victim("epoll_flood", {"--delay-ms", "2500"});
    ASSERT_TRUE(victim.ready());
    Trace trace({"--pid", std::to_string(victim.pid()), "--hook", hook, "--threshold", "1ms"});
    ASSERT_TRUE(trace.started());
    (void)victim.truth();
    EXPECT_EQ(trace.stop(), 0) << trace.process().errors();
    const json loop = victim.said("loop");
    const double each_ms = (loop["end_ns"].get<double>() - loop["start_ns"].get<double>()) / 1e6 /
                           loop["iterations"].get<double>();
    std::printf("--hook %s: polls of %.2f ms, %zu stalls\n", hook.c_str(), each_ms, trace.stalls().size());
    EXPECT_GT(each_ms, 1.05);  // or it shows nothing
    // A sample a millisecond: one that comes late, or takes more time than a poll leaves, is too late for
    // one.
    EXPECT_LT(trace.stalls().size(), loop["iterations"].get<size_t>() / 20);
  }
}

const Case kCases[] = {
    {"epoll_sleep", "auto", "sleep", {}},
    {"epoll_sleep", "always", "sleep", {}},
    {"epoll_sleep", "never", "sleep", {}},
    {"epoll_cpu", "auto", "cpu", {}},
    {"epoll_cpu", "always", "cpu", {}},
    {"epoll_cpu", "never", "cpu", {}},
    {"epoll_mixed", "auto", "sleep", {}},
    {"epoll_mixed", "always", "sleep", {}},
    {"poll_loop", "auto", "", {}},
    {"poll_loop", "always", "", {}},
    // Which of its polls is the loop shows after a while.
    {"select_loop", "auto", "", {"--delay-ms", "2500"}},
    {"select_loop", "always", "", {"--delay-ms", "2500"}},
    {"io_uring_loop", "auto", "", {}},
    {"io_uring_loop", "always", "", {}},
    {"nested_poll", "auto", "", {}},
    {"nested_poll", "always", "", {}},
    {"nested_epoll", "auto", "", {}},
    {"nested_epoll", "always", "", {}},
    {"nested_same", "auto", "", {}},
    {"nested_same", "always", "", {}},
    {"lock_wait", "auto", "lock", {}},
    {"lock_wait", "always", "lock", {}},
    {"pipe_full", "auto", "pipe", {}},
    {"child_wait", "auto", "child", {}},
    {"deep_stack", "auto", "sleep", {"--depth", "100"}},
    {"signal_frame", "auto", "sleep", {}},
    {"tcp_client_wait", "auto", "network", {}},
    {"tcp_client_wait", "auto", "network", {"--flavour", "tcp6"}},
    {"tcp_client_wait", "auto", "network", {"--flavour", "udp"}},
    {"tcp_client_wait", "auto", "network", {"--flavour", "unix"}},
    {"epoll_busy_short", "auto", "", {"--delay-ms", "1000", "--work-us", "200"}},
    {"epoll_busy_short", "always", "", {"--delay-ms", "1000", "--work-us", "200"}},
    {"epoll_busy_short", "auto", "", {"--delay-ms", "1000", "--work-us", "20000"}},
    {"epoll_busy_short", "auto", "", {"--delay-ms", "1000", "--work-us", "40000"}},
    {"epoll_busy_stall", "auto", "", {}},
    {"epoll_busy_stall", "auto", "", {"--flavour", "cpu"}},
    {"epoll_busy_stall", "always", "", {"--flavour", "cpu"}},
    {"rename_thread", "auto", "", {}},
    {"many_loops", "auto", "", {"--threads", "50", "--count", "1"}},
    {"thread_churn", "auto", "", {"--threads", "2"}},
};

std::string name_of(const testing::TestParamInfo<Case>& info) {
  std::string name = std::string(info.param.victim) + "_" + info.param.hook;
  for (const auto& a : info.param.args) {
    if (a[0] != '-') name += "_" + a;
  }
  return name;
}

INSTANTIATE_TEST_SUITE_P(Victims, Stalls, testing::ValuesIn(kCases), name_of);

}  // namespace
}  // namespace looptrace::test

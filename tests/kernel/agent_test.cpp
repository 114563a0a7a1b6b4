// SPDX-License-Identifier: Apache-2.0
// `looptrace agent` on the real kernel: which stalls its windows hold, what is attached when, reloads, the
// budget.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "agent_parts.h"

namespace looptrace::test {
namespace {

uint64_t realtime_offset() {
  timespec real, mono;
  clock_gettime(CLOCK_REALTIME, &real);
  clock_gettime(CLOCK_MONOTONIC, &mono);
  return static_cast<uint64_t>(real.tv_sec - mono.tv_sec) * 1'000'000'000 +
         static_cast<uint64_t>(real.tv_nsec) - static_cast<uint64_t>(mono.tv_nsec);
}

/// "2026-11-23T09:00:00.123456789Z" in CLOCK_REALTIME nanoseconds.
uint64_t time_of(const json& text) {
  json record = {{"time", text}};
  return start_of(record) + realtime_offset();
}

/// Times at which a process was looked at, with whether hooks were attached.
struct Look {
  uint64_t realtime_ns;
  bool attached;
};

// Stalls of a third of a window: many begin in one window and end in the next. Each belongs to the one it
// began in, with all of its time, whether the next one is active or not; in between, nothing is attached.
TEST(AgentWindows, HoldTheStallsThatBeganInThem) {
  LOOPTRACE_NEEDS_ROOT();
  Victim victim("epoll_sleep", {"--count", "26", "--threads", "3", "--stall-ms", "330", "--gap-ms", "70"});
  ASSERT_TRUE(victim.ready());
  const Config config(
      for_victim("[sampling]\nwindow = 1s\nprobability = 50%\nhost = test-3\n[budget]\ncpu = 100%\n"
                 "[service]\nrule = \"napper comm=victim_*\"\n"));
  Trace agent({"agent", "--config", config.path()});
  ASSERT_TRUE(agent.started());
  std::vector<Look> looks;
  while (!victim.process().ended()) {
    const uint64_t now = monotonic_ns() + realtime_offset();
    looks.push_back({now, links_of(agent.process().pid()) > 0});
    usleep(20'000);
  }
  const auto truth = victim.truth();
  EXPECT_EQ(agent.stop(), 0) << agent.process().errors();

  const uint64_t offset = realtime_offset();
  const auto stalls = agent.stalls();
  size_t active_seen = 0, inactive_seen = 0, crossing = 0;
  for (const json& w : agent.records("looptrace.window/1")) {
    const uint64_t from = time_of(w["start"]), to = time_of(w["end"]);
    std::vector<json> mine;
    for (const json& s : stalls) {
      if (s["sample"]["window"] == w["window"]) mine.push_back(s);
    }
    EXPECT_EQ(mine.size(), w["kept"].get<size_t>());
    EXPECT_EQ(w["seen"], w["kept"]) << "there is room for all";
    if (!w["active"].get<bool>()) {
      ++inactive_seen;
      EXPECT_EQ(w["seen"], 0);
      EXPECT_EQ(w["attached_ns"], 0);
      continue;
    }
    // Only a window that was covered from end to end; the first and the last are not.
    if (w["attached_ns"].get<uint64_t>() < 970 * kMs || w.contains("cut")) continue;
    ++active_seen;
    size_t certainly = 0, perhaps = 0;
    for (const json& t : truth) {
      const uint64_t start = t["start_ns"].get<uint64_t>() + offset;
      certainly += start >= from + 30 * kMs && start < to - 10 * kMs;
      perhaps += start >= from - 10 * kMs && start < to + 10 * kMs;
    }
    EXPECT_GE(mine.size(), certainly) << w.dump();
    EXPECT_LE(mine.size(), perhaps) << w.dump();
    for (const json& s : mine) {
      EXPECT_EQ(s["sample"]["weight"], 2.0);
      EXPECT_EQ(s["sample"]["probability"], 0.5);
      EXPECT_EQ(s["service"]["name"], "napper");
      const uint64_t start = time_of(s["time"]);
      EXPECT_GE(start, from);
      EXPECT_LT(start, to);
      expect_sum(s);
      EXPECT_GE(s["duration_ns"].get<uint64_t>(), 330 * kMs) << "waited for to its end";
      EXPECT_LE(s["duration_ns"].get<uint64_t>(), 430 * kMs);
      crossing += start + s["duration_ns"].get<uint64_t>() > to;
    }
  }
  EXPECT_GE(active_seen, 1u);
  EXPECT_GE(inactive_seen, 1u);
  EXPECT_GE(crossing, 1u) << "none went on beyond its window: nothing was shown";

  // In the second half of an inactive window all stalls of the one before have ended: no hook is left.
  size_t quiet = 0;
  for (const json& w : agent.records("looptrace.window/1")) {
    if (w["active"].get<bool>()) continue;
    for (const Look& look : looks) {
      const uint64_t from = time_of(w["start"]) + 550 * kMs, to = time_of(w["end"]) - 150 * kMs;
      if (look.realtime_ns < from || look.realtime_ns > to) continue;
      ++quiet;
      EXPECT_FALSE(look.attached) << "attached in an inactive window";
    }
  }
  EXPECT_GT(quiet, 5u);
  EXPECT_TRUE(std::any_of(looks.begin(), looks.end(), [](const Look& look) { return look.attached; }));
}

// What was not given is not waited for without end: a stall longer than the drain is cut, and says so.
TEST(Agent, AStallWithoutEndIsCut) {
  LOOPTRACE_NEEDS_ROOT();
  Victim victim("epoll_sleep", {"--count", "1", "--stall-ms", "4500", "--delay-ms", "3500"});
  ASSERT_TRUE(victim.ready());
  // The drain is longer than ten thresholds: that stall may begin at the very end of a window.
  const Config config(
      for_victim("[sampling]\nwindow = 2s\nprobability = 100%\ndrain = 600ms\n[budget]\ncpu = 100%\n"));
  Trace agent({"agent", "--config", config.path()});
  ASSERT_TRUE(agent.started());
  (void)victim.truth();
  EXPECT_EQ(agent.stop(), 0) << agent.process().errors();
  const auto stalls = agent.stalls();
  ASSERT_EQ(stalls.size(), 1u);
  EXPECT_EQ(stalls[0]["ended_by"], "window");
  expect_sum(stalls[0]);
  EXPECT_LT(stalls[0]["duration_ns"].get<uint64_t>(), 3000 * kMs);
  EXPECT_FALSE(agent.stalls("open").empty()) << "a stall of ten thresholds is told of at once";
  uint64_t cut = 0;
  for (const json& w : agent.records("looptrace.window/1")) cut += w.value("cut", uint64_t{0});
  EXPECT_EQ(cut, 1u);
}

TEST(Agent, AReloadLosesNothing) {
  LOOPTRACE_NEEDS_ROOT();
  Victim victim("epoll_sleep", {"--count", "60", "--stall-ms", "60", "--gap-ms", "40", "--delay-ms", "2500"});
  ASSERT_TRUE(victim.ready());
  const std::string budget = "[budget]\ncpu = 100%\n";
  Config config(for_victim("[sampling]\nwindow = 1s\n" + budget));
  Trace agent({"agent", "--config", config.path()});
  ASSERT_TRUE(agent.started());
  usleep(1'500'000);
  config.write(for_victim("[sampling]\nwindow = soon\n" + budget));
  agent.process().signal(SIGHUP);
  EXPECT_TRUE(agent.process().wait_line("{\"schema\":\"looptrace.warning/1\"", 5))
      << "a wrong file is told of";
  config.write(for_victim("[sampling]\nwindow = 2s\n" + budget));
  agent.process().signal(SIGHUP);
  const auto truth = victim.truth();
  EXPECT_EQ(agent.stop(), 0) << agent.process().errors();

  EXPECT_NE(agent.process().errors().find("agent.toml:6: sampling.window: 'soon'"), std::string::npos)
      << agent.process().errors();
  const auto warnings = agent.records("looptrace.warning/1");
  ASSERT_FALSE(warnings.empty());
  EXPECT_EQ(warnings[0]["code"], "reload_failed");
  EXPECT_EQ(agent.records("looptrace.start/1").size(), 1u) << "sampling changes without a restart";
  const auto windows = agent.records("looptrace.window/1");
  const auto length = [](const json& w) { return time_of(w["end"]) - time_of(w["start"]); };
  EXPECT_NEAR(static_cast<double>(length(windows.front())) / 1e9, 1, 0.01);
  EXPECT_NEAR(static_cast<double>(length(windows.back())) / 1e9, 2, 0.01);
  // Window by window, no stall is missing: those with a record, and those that weights stand for.
  uint64_t seen = 0;
  for (const json& w : windows) seen += w["seen"].get<uint64_t>();
  EXPECT_EQ(seen, truth.size());
  double weight = 0;
  for (const json& s : agent.stalls()) weight += s["sample"]["weight"].get<double>();
  EXPECT_NEAR(weight, static_cast<double>(truth.size()), 0.25 * static_cast<double>(truth.size()));
}

TEST(Agent, WhatNeedsARestartWaitsForTheWindowsEnd) {
  LOOPTRACE_NEEDS_ROOT();
  Victim victim("epoll_sleep", {"--count", "30", "--stall-ms", "60", "--gap-ms", "60", "--delay-ms", "1200"});
  ASSERT_TRUE(victim.ready());
  Config config(for_victim("[sampling]\nwindow = 1s\n"));
  Trace agent({"agent", "--config", config.path()});
  ASSERT_TRUE(agent.started());
  usleep(1'500'000);
  config.write(for_victim("[sampling]\nwindow = 1s\n[trace]\nthreshold = 40ms\n"));
  agent.process().signal(SIGHUP);
  (void)victim.truth();
  EXPECT_EQ(agent.stop(), 0) << agent.process().errors();
  const auto starts = agent.records("looptrace.start/1");
  ASSERT_EQ(starts.size(), 2u);
  EXPECT_EQ(starts[1]["threshold_ns"], 40 * kMs);
  const auto stalls = agent.stalls();
  EXPECT_TRUE(
      std::any_of(stalls.begin(), stalls.end(), [](const json& s) { return s["threshold_ns"] == 40 * kMs; }));
  EXPECT_TRUE(
      std::any_of(stalls.begin(), stalls.end(), [](const json& s) { return s["threshold_ns"] == 50 * kMs; }));
}

// Thousands of stalls a second against 3 % of a core: it sheds until that fits, says so, and comes back.
TEST(AgentBudget, ShedsWhatBreaksItAndRecovers) {
  LOOPTRACE_NEEDS_ROOT();
  Victim load("epoll_sleep", {"--threads", "24", "--count", "1600", "--stall-ms", "2", "--gap-ms", "1"});
  ASSERT_TRUE(load.ready());
  const Config config(
      for_victim("[trace]\nthreshold = 1ms\n[sampling]\nwindow = 1s\nrecords = "
                 "50\n[budget]\ncpu = 3%\nrecovery = 1s\n"));
  Trace agent({"agent", "--config", config.path()});
  ASSERT_TRUE(agent.started());
  const auto truth = load.truth();
  EXPECT_GT(truth.size(), 20'000u);
  const auto worst = [&] {
    int step = 0;
    for (const json& w : agent.records("looptrace.window/1"))
      step = std::max(step, w["budget"]["step"].get<int>());
    return step;
  };
  const auto last = [&] {
    const auto windows = agent.records("looptrace.window/1");
    return windows.empty() ? 0 : windows.back()["budget"]["step"].get<int>();
  };
  // It may relapse: attaching again costs something, too.
  const uint64_t until = monotonic_ns() + 20'000 * kMs;
  int reached = 0, left = 0;
  do {
    usleep(200'000);
    reached = worst();
    left = last();
  } while (monotonic_ns() < until && (reached == 0 || left >= reached));
  EXPECT_EQ(agent.stop(), 0) << agent.process().errors();
  EXPECT_GE(reached, 2) << "nothing was shed";
  EXPECT_LT(left, reached) << "nothing was given back";
  bool told_why = false;
  for (const json& w : agent.records("looptrace.window/1")) {
    std::printf("%s step %d, used %.1f %% of a core, seen %llu, kept %llu\n",
                w["budget"]["level"].get<std::string>().c_str(), w["budget"]["step"].get<int>(),
                100 * w["budget"]["used"].get<double>(),
                static_cast<unsigned long long>(w["seen"].get<uint64_t>()),
                static_cast<unsigned long long>(w["kept"].get<uint64_t>()));
    EXPECT_LE(w["kept"], 50);
    told_why |= w["budget"].contains("reason");
    EXPECT_EQ(w["budget"].contains("reason"), w["budget"]["step"] != 0);
  }
  EXPECT_TRUE(told_why);
  const auto warnings = agent.records("looptrace.warning/1");
  const auto has = [&](const char* code) {
    return std::any_of(warnings.begin(), warnings.end(), [&](const json& w) { return w["code"] == code; });
  };
  EXPECT_TRUE(has("budget_shed"));
  EXPECT_TRUE(has("budget_recovered"));
}

TEST(Agent, ChecksItsConfiguration) {
  Config config("[sampling]\nwindow = 10s\n");
  EXPECT_EQ(run_looptrace({"agent", "--check-config", "--config", config.path()}).code, 0);
  config.write("[sampling]\nwindow = 10s\nprobability = 2\n");
  const Outcome wrong = run_looptrace({"agent", "--check-config", "--config", config.path()});
  EXPECT_EQ(wrong.code, 2);
  EXPECT_NE(wrong.errors.find("sampling.probability"), std::string::npos) << wrong.errors;
  const Outcome started = run_looptrace({"agent", "--config", config.path()});
  EXPECT_EQ(started.code, 2) << "it does not start with a wrong one";
}

}  // namespace
}  // namespace looptrace::test

// SPDX-License-Identifier: Apache-2.0
// CPython frames as the BPF programs take them, against the victim's own account of the lines that it ran:
// every version that is here, on a CPU and blocked.
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <thread>

#include "../pythons.h"
#include "harness.h"

namespace looptrace::test {
namespace {

using Place = std::pair<std::string, int>;

/// The Python frames of a stack, innermost first.
std::vector<Place> python_frames(const json& stack) {
  std::vector<Place> found;
  for (const json& f : stack["frames"]) {
    if (f.value("kind", "") == "python") found.emplace_back(f.value("function", "?"), f.value("line", 0));
  }
  return found;
}

struct Score {
  uint64_t samples = 0, leaves = 0, stacks = 0, entering = 0, cut = 0;
  std::string first_wrong;

  void add(const json& truth, const json& stack) {
    const auto frames = python_frames(stack);
    auto wanted = truth["frames"].get<std::vector<Place>>();
    // The function that it calls all the while may be the leaf instead.
    if (truth.contains("callee") && !frames.empty() && frames[0].first == truth["callee"][0]) {
      wanted.insert(wanted.begin(), truth["callee"].get<Place>());
    }
    const uint64_t n = stack.value("samples", 1);
    // The first sample in another interpreter shows only that there is one.
    if (stack.value("incomplete", false) && truth["shape"].get<std::string>().ends_with("sub")) {
      cut += n;
      return;
    }
    // The stall begins on the line of its `with`, the one before.
    if (!frames.empty() && frames[0] == Place{wanted[0].first, wanted[0].second - 1}) {
      entering += n;
      return;
    }
    const bool leaf = !frames.empty() && frames[0] == wanted[0];
    const bool whole = frames == wanted;
    samples += n;
    leaves += leaf ? n : 0;
    stacks += whole ? n : 0;
    if (!whole && first_wrong.empty()) first_wrong = truth.dump() + "\nbut " + stack.dump();
  }
};

void print(const std::string& what, const char* state, const Score& score) {
  std::printf("  %-28s %-8s %5llu samples (and %llu cut), leaf right in %.2f %%, whole stack in %.2f %%\n",
              what.c_str(), state, static_cast<unsigned long long>(score.samples),
              static_cast<unsigned long long>(score.cut),
              100.0 * static_cast<double>(score.leaves) / static_cast<double>(score.samples),
              100.0 * static_cast<double>(score.stacks) / static_cast<double>(score.samples));
}

/// A stall that waited for the GIL: its cause, and by whom it was held if that was seen.
bool holder_named(const json& truth, const json& s) {
  EXPECT_TRUE(s["cause"]["kind"] == "gil" || s["cause"]["kind"] == "runqueue") << s.dump();
  bool named = false;
  for (const json& wait : s["waits"]) {
    if (wait["cause"] != "gil" || !wait.contains("held_by")) continue;
    const json frames = wait["held_by"].value("frames", json::array());
    if (frames.empty()) continue;
    // The keeper calls a C function, or has just begun to wait for its turn.
    const std::string function = frames[0].value("function", "?");
    named = named || function == truth["held_by"];
    EXPECT_NE(wait["held_by"]["tid"], s["thread"]["id"]) << s.dump();
  }
  return named;
}

/// A stall of a thread that another one stopped, without a GIL: a wait that the other one ends.
void expect_stopped(const json& truth, const json& s) {
  bool ended_by_it = false;
  for (const json& wait : s["waits"]) {
    EXPECT_NE(wait["cause"], "gil") << s.dump();
    ended_by_it = ended_by_it || (wait["cause"] == "lock" &&
                                  wait.value("woken_by", json::object()).value("tid", 0) == truth["held_by"]);
  }
  EXPECT_TRUE(ended_by_it) << s.dump();
}

void expect_lines(const std::vector<std::string>& python, const std::string& version) {
  auto command = python;
  command.push_back(std::string(SOURCE_DIR) + "/tests/victims/py_lines.py");
  Victim victim(command, {});
  ASSERT_TRUE(victim.ready()) << victim.process().errors();
  Trace trace({"--pid", std::to_string(victim.pid()), "--threshold", "20ms", "--sample-hz", "997",
               "--max-line", "200000"});
  ASSERT_TRUE(trace.started());
  victim.process().signal(SIGUSR1);
  const auto truth = victim.truth();
  EXPECT_EQ(trace.stop(), 0) << trace.process().errors();
  const bool has_gil = version.back() != 't';
  EXPECT_EQ(truth.size(), has_gil ? 28u : 26u) << victim.process().errors();
  const auto stalls = trace.stalls();
  Score on_cpu, blocked;
  int holders = 0;
  for (const json& t : truth) {
    const json* s = overlapping(t, stalls);
    ASSERT_TRUE(s) << "missed: " << t.dump();
    // "cpython 3.13.5t" is without a GIL
    const std::string runtime = (*s)["process"].value("runtime", "?"),
                      number = version.substr(0, version.find('t'));
    EXPECT_TRUE(runtime.starts_with("cpython " + number + ".") && runtime.ends_with("t") != has_gil)
        << runtime;
    if (t["kind"] == "gil") {
      holders += holder_named(t, *s);
      continue;
    }
    if (t["kind"] == "stopped") {
      expect_stopped(t, *s);
      continue;
    }
    // That the machine was busy with other things is true, too.
    const bool preempted = (*s)["cause"]["kind"] == "runqueue";
    EXPECT_TRUE(preempted || (t["kind"] == "gc") == ((*s)["cause"]["kind"] == "gc")) << s->dump();
    const bool sleeps = t["kind"] == "sleep";
    const uint64_t before = (sleeps ? blocked : on_cpu).samples;
    for (const json& stack : (*s)["stacks"]) {
      if (stack["state"] != (sleeps ? "blocked" : "on_cpu")) continue;
      // A stall that sleeps has short waits besides.
      if (sleeps && stack["weight_ns"].get<uint64_t>() * 2 < (*s)["duration_ns"]) continue;
      (sleeps ? blocked : on_cpu).add(t, stack);
    }
    EXPECT_GT((sleeps ? blocked : on_cpu).samples, before) << "no stack: " << s->dump();
  }
  ASSERT_GT(on_cpu.samples, 0u);
  ASSERT_GT(blocked.samples, 0u);
  EXPECT_EQ(holders > 0, has_gil) << "of 3 waits for the GIL";
  const std::string runtime = stalls[0]["process"].value("runtime", "?");
  print(runtime, "on CPU", on_cpu);
  print(runtime, "blocked", blocked);
  EXPECT_GE(static_cast<double>(on_cpu.leaves), 0.99 * static_cast<double>(on_cpu.samples))
      << on_cpu.first_wrong;
  EXPECT_GE(static_cast<double>(on_cpu.stacks), 0.99 * static_cast<double>(on_cpu.samples))
      << on_cpu.first_wrong;
  EXPECT_LE(on_cpu.entering * 20, on_cpu.samples);
  EXPECT_EQ(blocked.entering, 0u);
  EXPECT_LE(on_cpu.cut * 8, on_cpu.samples) << "of four stalls in other interpreters";
  EXPECT_EQ(blocked.cut, 0u);
  EXPECT_EQ(blocked.leaves, blocked.samples) << blocked.first_wrong;
  EXPECT_EQ(blocked.stacks, blocked.samples) << blocked.first_wrong;
}

class Python : public testing::TestWithParam<const char*> {};

TEST_P(Python, LinesAreThoseThatRan) {
  LOOPTRACE_NEEDS_ROOT();
  const auto found = pythons(GetParam());
  if (found.empty()) GTEST_SKIP() << no_python(GetParam());
  expect_lines({found.back()}, GetParam());
}

// The same of a program that embeds libpython: this machine's, and the newest in the root of another suite.
TEST(PythonEmbedded, LinesAreThoseThatRan) {
  LOOPTRACE_NEEDS_ROOT();
  const std::string program = victim_path("embedded_python");
  const Outcome told = run({"/usr/bin/python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"});
  const std::string version = told.out.substr(0, told.out.find('\n'));
  expect_lines({program, "libpython" + version + ".so.1.0"}, version);
}

TEST(PythonEmbedded, LinesAreThoseThatRanInAnotherRoot) {
  LOOPTRACE_NEEDS_ROOT();
  const std::string cache = cache_directory();
  const std::string python = cache + "/python-3.15/bin/python3.15";
  if (access(python.c_str(), X_OK) != 0) GTEST_SKIP() << "no " << python;
  expect_lines({"/usr/bin/env", "LOOPTRACE_TEST_PROGRAM=" + victim_path("embedded_python"), python,
                "libpython3.15.so.1.0"},
               "3.15");
}

INSTANTIATE_TEST_SUITE_P(CPython, Python,
                         testing::Values("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.13t", "3.14",
                                         "3.14t", "3.15", "3.15t"),
                         [](const auto& info) {
                           std::string name = info.param;
                           name[1] = '_';
                           return name;
                         });

}  // namespace
}  // namespace looptrace::test

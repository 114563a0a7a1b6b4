// SPDX-License-Identifier: Apache-2.0
// The asyncio Task that a stack ran for: named where it was seen with the stack, never another's name.
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "../pythons.h"
#include "harness.h"

namespace looptrace::test {
namespace {

namespace fs = std::filesystem;

const json* overlapping(const json& truth, const std::vector<json>& stalls) {
  for (const json& s : stalls) {
    const uint64_t from = start_of(s), to = from + s["duration_ns"].get<uint64_t>();
    if (from < truth["end_ns"] && truth["start_ns"] < to) return &s;
  }
  return nullptr;
}

/// Every member of `wanted` is there and equal; a null one is absent.
void expect_members(const json& wanted, const json& got) {
  for (const auto& [key, value] : wanted.items()) {
    if (value.is_null()) {
      EXPECT_FALSE(got.contains(key)) << key;
    } else if (value.is_object()) {
      EXPECT_TRUE(got.contains(key)) << key;
      if (got.contains(key)) expect_members(value, got[key]);
    } else {
      EXPECT_TRUE(got.contains(key) && got[key] == value) << key << ", should be " << value.dump();
    }
  }
}

void expect_tasks(const std::vector<std::string>& command) {
  Victim victim(command);
  ASSERT_TRUE(victim.ready() || victim.process().wait(1) == 77) << victim.process().errors();
  if (!victim.ready()) GTEST_SKIP() << victim.process().errors();
  // Every poll is seen: beside other tests a probe can come too late to be sure of a stall on a CPU.
  Trace trace({"--pid", std::to_string(victim.pid()), "--threshold", "50ms", "--hook", "always"});
  ASSERT_TRUE(trace.started());
  const auto truth = victim.truth();
  EXPECT_EQ(trace.stop(), 0) << trace.process().errors();
  ASSERT_GE(truth.size(), 9u);
  const auto stalls = trace.stalls();
  EXPECT_EQ(stalls.size(), truth.size());
  for (const json& t : truth) {
    const json* s = overlapping(t, stalls);
    ASSERT_TRUE(s) << "missed: " << t.dump();
    SCOPED_TRACE(t.dump() + "\nrecord " + s->value("task", json()).dump() + " " +
                 s->value("message", std::string()));
    if (t["task"].is_null()) {
      EXPECT_FALSE(s->contains("task"));
    } else if (s->contains("task")) {
      json wanted = t["task"];
      const bool unnamed = t.contains("first") && !(*s)["task"].contains("name");
      if (unnamed) wanted.erase("name");
      // Where it was created is told with the name, and asked for while the Task lives.
      if (unnamed) wanted.erase("created_at");
      expect_members(wanted, (*s)["task"]);
    } else {
      ADD_FAILURE() << "no task";
    }
  }
}

std::string script() { return std::string(SOURCE_DIR) + "/tests/victims/py_tasks.py"; }

TEST(Tasks, AreNamedWithTheirCoroutine) {
  LOOPTRACE_NEEDS_ROOT();
  expect_tasks({"/usr/bin/python3", script()});
}

TEST(Tasks, DebugModeTellsWhereTheyWereCreated) {
  LOOPTRACE_NEEDS_ROOT();
  expect_tasks({"/usr/bin/python3", "-W", "ignore", script(), "--debug"});
}

// Their name is known from 3.14 on.
TEST(Tasks, OfUvloopHaveTheirCoroutine) {
  LOOPTRACE_NEEDS_ROOT();
  expect_tasks({"/usr/bin/python3", script(), "--uvloop"});
}

class TasksOfNewer : public testing::TestWithParam<const char*> {
 protected:
  void expect(std::vector<std::string> arguments) {
    LOOPTRACE_NEEDS_ROOT();
    const auto found = pythons(GetParam());
    if (found.empty()) GTEST_SKIP() << no_python(GetParam());
    arguments.insert(arguments.begin(), {found.back(), "-W", "ignore", script()});
    expect_tasks(arguments);
  }
};

TEST_P(TasksOfNewer, AreNamed) { expect({}); }
TEST_P(TasksOfNewer, DebugModeTellsWhereTheyWereCreated) { expect({"--debug"}); }
TEST_P(TasksOfNewer, OfUvloopAreNamedToo) { expect({"--uvloop"}); }

INSTANTIATE_TEST_SUITE_P(CPython, TasksOfNewer, testing::Values("3.13t", "3.14", "3.14t", "3.15", "3.15t"),
                         [](const auto& info) { return std::string("3_") + (info.param + 2); });

}  // namespace
}  // namespace looptrace::test

// SPDX-License-Identifier: Apache-2.0
// Native stacks that need more than rsp and rbp: each must reach the thread's start.
#include <unistd.h>

#include <algorithm>

#include "harness.h"

namespace looptrace::test {
namespace {

bool has_frame(const json& stack, const std::string& function) {
  return std::any_of(stack["frames"].begin(), stack["frames"].end(),
                     [&](const json& frame) { return frame.value("function", "") == function; });
}

class RegisterStacks : public testing::TestWithParam<const char*> {};

TEST_P(RegisterStacks, ReachTheThreadsStart) {
  LOOPTRACE_NEEDS_ROOT();
  Victim victim("leaf_registers", {"--flavour", GetParam(), "--count", "4", "--stall-ms", "150", "--gap-ms",
                                   "50", "--delay-ms", "1200"});
  ASSERT_TRUE(victim.ready()) << victim.process().errors();
  Trace trace({"--pid", std::to_string(victim.pid()), "--threshold", "50ms"});
  ASSERT_TRUE(trace.started());
  victim.process().wait();
  EXPECT_EQ(trace.stop(), 0) << trace.process().errors();
  const auto stalls = of_pid(trace.stalls(), victim.pid());
  ASSERT_EQ(stalls.size(), 4u);
  size_t stacks = 0, spinning = 0;
  for (const json& stall : stalls) {
    for (const json& stack : stall["stacks"]) {
      ++stacks;
      EXPECT_FALSE(stack.contains("incomplete")) << stack.dump();
      for (const char* function : {"call_by_register", "run_epoll_loop", "main", "_start"})
        EXPECT_TRUE(has_frame(stack, function)) << function << " in " << stack.dump();
      for (const char* function : {"spin_r10", "spin_rax", "spin_call", "spin_index", "vfork", "__vfork"})
        spinning += has_frame(stack, function);
    }
  }
  EXPECT_GE(stacks, 4u);
  EXPECT_GE(spinning, 4u);
}

INSTANTIATE_TEST_SUITE_P(Native, RegisterStacks, testing::Values("r10", "call", "index", "signal", "vfork"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace looptrace::test

// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "looptrace.h"
#include "trace/processes.h"
#include "trace/stack_builder.h"

namespace looptrace {
namespace {

TEST(TracedProcess, IsWarnedOfOnce) {
  TracedProcess process;
  process.warn("unwind_table: no room");
  process.warn("unwind_table: no room");
  process.warn("runtime_unknown: some");
  EXPECT_EQ(process.warnings.size(), 2u);
  process.warnings.clear();  // reported
  process.warn("unwind_table: no room");
  EXPECT_TRUE(process.warnings.empty());
}

TEST(TracedProcess, ThatWasReadAfterTheClockWasIsNotOld) {
  TracedProcess process;
  process.loaded_ns = 1'000;
  EXPECT_FALSE(process.is_older(10, 900));
  EXPECT_FALSE(process.is_older(10, 1'010));
  EXPECT_TRUE(process.is_older(10, 1'011));
}

TEST(StackBuilder, AWalkThatBrokeOffElsewhereSaysNothingOfMadeCode) {
  constexpr uint64_t kCode = 0x10000, kEnd = 0x20000;
  ObjectCache objects;
  auto modules = ProcessModules::load(getpid(), objects);
  ASSERT_TRUE(modules);
  modules->cover(kCode, kEnd, std::make_shared<const std::vector<lt_row>>(1));
  TracedProcess process;
  process.modules = std::move(*modules);
  process.makes_code = true;
  const auto ended = [&](lt_unwind_status status, std::vector<uint64_t> user) {
    RawCapture capture{};
    capture.head.nr = -1;
    capture.head.unwind_status = status;
    capture.user = std::move(user);
    return ended_in_made_code(capture, process);
  };
  const auto outside = reinterpret_cast<uint64_t>(&getpid);
  EXPECT_TRUE(ended(LT_UNWIND_UNSUPPORTED, {kCode}));
  EXPECT_TRUE(ended(LT_UNWIND_NO_ROW, {outside, kEnd})) << "a return address behind the last call";
  EXPECT_FALSE(ended(LT_UNWIND_NO_ROW, {outside, kCode}));
  EXPECT_FALSE(ended(LT_UNWIND_NO_ROW, {kCode + 8, outside}));
  EXPECT_FALSE(ended(LT_UNWIND_FULL, {outside, kCode + 8}));
  EXPECT_FALSE(ended(LT_UNWIND_END, {kCode + 8}));
  EXPECT_FALSE(ended(LT_UNWIND_OFF, {}));
  process.makes_code = false;
  EXPECT_FALSE(ended(LT_UNWIND_UNSUPPORTED, {kCode}));
}

}  // namespace
}  // namespace looptrace

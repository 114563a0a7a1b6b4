// SPDX-License-Identifier: Apache-2.0
// Which threads that wait in a futex are workers of a loop that polls, and when they are looked for.
#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "trace/off_cpu_place.h"
#include "trace/parked_workers.h"

namespace looptrace {
namespace {

constexpr uint64_t kS = 1'000'000'000;

class SameCallTest : public testing::Test {
 protected:
  bool same(std::vector<uint64_t> polling, std::vector<uint64_t> waiting) const {
    return chose_in_same_call(polling, waiting, [this](uint64_t address, uint64_t& value) {
      const auto at = code_.find(address);
      if (at == code_.end()) return false;
      value = at->second;
      return true;
    });
  }
  void direct_call_before(uint64_t returns_to) { code_[returns_to - 8] = 0x00000120e8909090; }
  void call_by_pointer_before(uint64_t returns_to) { code_[returns_to - 8] = 0x48d0ff9090909090; }

  std::map<uint64_t, uint64_t> code_;
};

// leaf first: the poll or the futex, park(), run(), the thread's start
TEST_F(SameCallTest, BothInTheFunctionThatWasCalledDirectly) {
  direct_call_before(0x3000);
  EXPECT_TRUE(same({0x100, 0x2010, 0x3000, 0x4000}, {0x200, 0x2090, 0x3000, 0x4000}));
  EXPECT_TRUE(same({0x100, 0x1500, 0x2010, 0x3000, 0x4000}, {0x200, 0x2090, 0x3000, 0x4000}))
      << "one of them further in";
}

TEST_F(SameCallTest, ACallThroughAPointerMayHaveBeenOfTwoFunctions) {
  call_by_pointer_before(0x3000);
  direct_call_before(0x4000);
  EXPECT_FALSE(same({0x100, 0x2010, 0x3000, 0x4000}, {0x200, 0x7000, 0x3000, 0x4000}));
}

TEST_F(SameCallTest, OtherCallsAreOtherFunctions) {
  direct_call_before(0x3000);
  EXPECT_FALSE(same({0x100, 0x2010, 0x3000, 0x4000}, {0x200, 0x2090, 0x3030, 0x4030})) << "nothing in common";
  EXPECT_FALSE(same({0x100, 0x2010, 0x3000, 0x4000}, {0x200, 0x2090, 0x3050, 0x4000}))
      << "its code is unread";
  EXPECT_FALSE(same({0x3000, 0x4000}, {0x200, 0x3000, 0x4000})) << "that is no poll";
  EXPECT_FALSE(same({}, {0x200, 0x3000}));
  EXPECT_FALSE(same({0x100, 0x3000}, {}));
}

TEST(ParkedWorkersDueTest, AtOnceAndAFewTimesMore) {
  ParkedWorkersDue due;
  EXPECT_EQ(due.next(10 * kS), std::nullopt);
  due.loop_found(7, 10 * kS);
  int looks = 0;
  for (uint64_t now = 10 * kS; now < 30 * kS; now += kS / 2) {
    if (const auto tgid = due.next(now)) {
      EXPECT_EQ(*tgid, 7u);
      EXPECT_EQ(now % kS, 0u) << "no sooner than a second later";
      ++looks;
    }
    EXPECT_EQ(due.next(now), std::nullopt) << "one look at a time";
  }
  EXPECT_EQ(looks, 5);
  due.loop_found(7, 40 * kS);
  EXPECT_EQ(due.next(40 * kS), 7u) << "another loop of it";
}

TEST(OffCpuPlaceTest, ReadsWhatTheKernelWrites) {
  const auto call =
      parse_off_cpu_place("232 0x3 0x562f 0x400 0xffffffff 0x0 0x8 0x7ffd00001000 0x7f6b18220f36\n");
  ASSERT_TRUE(call);
  EXPECT_EQ(call->nr, 232);
  EXPECT_EQ(call->args[0], 3u);
  EXPECT_EQ(call->args[5], 8u);
  EXPECT_EQ(call->sp, 0x7ffd00001000u);
  EXPECT_EQ(call->ip, 0x7f6b18220f36u);
  const auto none = parse_off_cpu_place("-1 0x7ffd00001000 0x7f6b18220f36\n");
  ASSERT_TRUE(none);
  EXPECT_EQ(none->nr, -1);
  EXPECT_EQ(none->sp, 0x7ffd00001000u);
  for (const char* text : {"running\n", "", "232 0x3 0x4\n", "232\n", "-1 0x1\n"})
    EXPECT_FALSE(parse_off_cpu_place(text)) << text;
}

}  // namespace
}  // namespace looptrace

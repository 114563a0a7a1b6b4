// SPDX-License-Identifier: Apache-2.0
// Which threads share an epoll descriptor: all of them, those of one process only, and not looked at for each
// stall.
#include <gtest/gtest.h>

#include "trace/shared_pollers.h"

namespace looptrace {
namespace {

constexpr uint64_t kMs = 1'000'000;

class SharedPollersTest : public testing::Test {
 protected:
  void polls(uint32_t index, int32_t fd, uint32_t kind = LT_POLL_EPOLL) {
    slots_[index].loop.call.fd = fd;
    slots_[index].loop.call.kind = kind;
  }
  bool shared(uint32_t index) const { return slots_[index].user_flags & LT_SLOT_SHARED_POLLER; }

  std::vector<lt_slot> slots_ = std::vector<lt_slot>(8);
  SharedPollers pollers_{[this](uint32_t index) -> lt_slot& { return slots_[index]; }};
};

TEST_F(SharedPollersTest, AllThatPollTheSameDescriptor) {
  polls(0, 5), polls(1, 6), polls(2, 5), polls(3, 5);
  for (uint32_t i = 0; i < 4; ++i) pollers_.found(100, i);
  pollers_.mark(100, 1000 * kMs);
  EXPECT_TRUE(shared(0) && shared(2) && shared(3));
  EXPECT_FALSE(shared(1));
}

TEST_F(SharedPollersTest, NotThoseOfAnotherProcessAndNotOtherPolls) {
  polls(0, 5), polls(1, 5), polls(2, -1, LT_POLL_POLL), polls(3, -1, LT_POLL_POLL);
  pollers_.found(100, 0);
  pollers_.found(200, 1);
  pollers_.found(100, 2);
  pollers_.found(100, 3);
  pollers_.mark(100, 1000 * kMs);
  pollers_.mark(200, 1000 * kMs);
  for (uint32_t i = 0; i < 4; ++i) EXPECT_FALSE(shared(i)) << i;
}

TEST_F(SharedPollersTest, OneThatComesIsComparedAtOnceOneThatChangesSoon) {
  polls(0, 5), polls(1, 6), polls(2, 5);
  pollers_.found(100, 0);
  pollers_.found(100, 1);
  pollers_.mark(100, 1000 * kMs);
  pollers_.found(100, 2);
  pollers_.mark(100, 1001 * kMs);
  EXPECT_TRUE(shared(0) && shared(2));
  polls(1, 5);
  pollers_.mark(100, 1002 * kMs);
  EXPECT_FALSE(shared(1));
  pollers_.mark(100, 1101 * kMs);
  EXPECT_TRUE(shared(1));
}

TEST_F(SharedPollersTest, OneThatIsGoneIsNotLookedAt) {
  polls(0, 5), polls(1, 5);
  pollers_.found(100, 0);
  pollers_.found(100, 1);
  pollers_.gone(100, 0);
  pollers_.gone(100, 0);  // told twice
  pollers_.gone(300, 7);  // never told of
  pollers_.mark(100, 1000 * kMs);
  EXPECT_FALSE(shared(0) || shared(1));
}

}  // namespace
}  // namespace looptrace

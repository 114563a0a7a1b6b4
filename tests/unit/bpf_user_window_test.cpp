// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/mman.h>

#include "bpf_user_memory.h"

namespace {

#include "user_window.bpf.h"

constexpr u64 kPage = 4096;

// Two pages of words that hold their own addresses, and behind them one that is not there.
class UserWindow : public testing::Test {
 protected:
  void SetUp() override {
    void* memory = mmap(nullptr, 3 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    low_ = reinterpret_cast<u64>(memory);
    high_ = low_ + 2 * kPage;
    for (u64 at = low_; at < high_; at += 8) *reinterpret_cast<u64*>(at) = at;
    unreadable_from = high_, unreadable_to = high_ + kPage;
  }
  void TearDown() override { munmap(reinterpret_cast<void*>(low_), 3 * kPage); }

  void expect_held(u64 from, u64 size) {
    EXPECT_TRUE(window_holds(&window_, from, static_cast<u32>(size))) << from - low_;
    for (u64 at = from; at < from + size; at += 8) EXPECT_EQ(window_word(&window_, at), at);
  }

  u64 low_ = 0, high_ = 0;
  user_window window_{};
};

TEST_F(UserWindow, HoldsWhatWasAskedForWhereverPagesEnd) {
  for (u64 at = low_; at + 40 <= high_; at += 8) {
    ASSERT_EQ(window_read_up(&window_, at, 40), 0) << at - low_;
    expect_held(at, 40);
    ASSERT_EQ(window_read_down(&window_, at, 40), 0) << at - low_;
    expect_held(at, 40);
  }
}

TEST_F(UserWindow, HoldsNothingThatIsNotThere) {
  EXPECT_EQ(window_read_up(&window_, high_ - 8, 8), 0);
  expect_held(high_ - 8, 8);
  EXPECT_FALSE(window_holds(&window_, high_ - 8, 16));
  EXPECT_FALSE(window_holds(&window_, high_ - 16, 8));
  EXPECT_FALSE(window_holds(&window_, high_ - 4, 4)) << "words only";
  EXPECT_NE(window_read_up(&window_, high_ - 8, 16), 0);
  EXPECT_FALSE(window_holds(&window_, high_ - 8, 8));
  EXPECT_NE(window_read_up(&window_, high_, 8), 0);
  EXPECT_NE(window_read_down(&window_, high_ - 40, 80), 0);
}

}  // namespace

// SPDX-License-Identifier: Apache-2.0
// What is lost is named, and nothing is named that did not happen.
#include <gtest/gtest.h>

#include "bpf/engine.h"
#include "trace/losses.h"

namespace looptrace {
namespace {

TEST(Losses, NothingIsNamedWhereNothingWasLost) { EXPECT_TRUE(name_losses({}, {}, 0, 0).empty()); }

TEST(Losses, EachReasonHasItsCount) {
  std::array<uint64_t, LT_NR_DROPS> kernel{};
  kernel[LT_DROP_LOOPS_FULL] = 3;
  QueueLosses queue;
  queue.stalls = 1;
  queue.stacks = 2;
  queue.events = 4;
  const auto losses = name_losses(kernel, queue, 5, 6);
  const std::map<std::string, uint64_t> want{{drop_name(LT_DROP_LOOPS_FULL), 3},
                                             {"stall_queue_full", 1},
                                             {"stack_queue_full", 2},
                                             {"event_queue_full", 4},
                                             {"open_queue_full", 5},
                                             {"stall_of_unknown_loop", 6}};
  EXPECT_EQ(losses, want);
}

TEST(Losses, AStackThatWasNotTakenIsNoLostEvent) {
  std::array<uint64_t, LT_NR_DROPS> kernel{};
  kernel[LT_DROP_CAPTURE_BUDGET] = 9;
  kernel[LT_DROP_SWITCH_HEALED] = 9;
  EXPECT_TRUE(name_losses(kernel, {}, 0, 0).empty());
}

TEST(Losses, AMessageSaysWhatCanBeDone) {
  EXPECT_EQ(loss_message("stall_of_unknown_loop", 1, 2), "1 more lost, 2 in all");
  EXPECT_NE(loss_message(drop_name(LT_DROP_LOOPS_FULL), 1, 1).find("--max-loops"), std::string::npos);
  EXPECT_NE(loss_message("stall_queue_full", 1, 1).find("raise the threshold"), std::string::npos);
  for (uint32_t i = 0; i < LT_NR_DROPS; ++i) {
    const std::string reason = drop_name(static_cast<lt_drop>(i));
    if (reason.ends_with("ring_full")) {
      EXPECT_NE(loss_message(reason, 1, 1).find("--ring-bytes"), std::string::npos) << reason;
    }
  }
}

}  // namespace
}  // namespace looptrace

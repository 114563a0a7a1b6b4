// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace looptrace {

/// Whether a loop is busy because it always finds something to poll: without a hook its short iterations look
/// like one long one. Probes tell: soon after each was attached the loop polled, and went on at once. Where
/// all its polls are seen, they do: few of them sleep. Times in ns, CLOCK_MONOTONIC.
class Saturation {
 public:
  /// A look at its present iteration, which began at `start_ns`; at a poll that returned at once if
  /// `entered`. Every poll is seen since `hook_since` (0: it is not), and an iteration is suspect at the
  /// age `suspect_ns`.
  void look(uint64_t now, uint64_t start_ns, bool entered, uint64_t hook_since, uint64_t suspect_ns) {
    if (start_ns != start_ns_) {
      // An iteration that the probe saw from its begin on is as long as it is.
      const bool apparent = suspect_ && start_ns_ < hook_since;
      if (apparent && entered && start_ns >= hook_since && start_ns - hook_since < suspect_ns) {
        in_a_row_ = now - last_ns_ < kForgottenNs ? in_a_row_ + 1 : 1;
        last_ns_ = now;
      }
      start_ns_ = start_ns;
      suspect_ = false;
    }
    if (now > start_ns && now - start_ns >= suspect_ns) suspect_ = true;
  }

  /// What it has polled, and slept in its polls, so far: counts that grow while every poll is seen.
  void count(uint64_t now, uint64_t polls, uint64_t sleeps, uint64_t hook_since, uint64_t suspect_ns) {
    const uint64_t polled = polls - polls_, slept = sleeps - sleeps_;
    const bool same = hook_since && hook_since == counted_since_;
    if (same && polled < kSomePolls) return;
    if (same) {
      const uint64_t took = now - counted_ns_;
      // Without a hook it is suspect where it has not slept for that long.
      if (is_saturated(now) && slept < polled / 2 && slept * suspect_ns <= took) last_ns_ = now;
      if (polled * kShortNs > took) short_until_ns_ = now + kShortForNs;
    }
    counted_since_ = hook_since;
    counted_ns_ = now;
    polls_ = polls;
    sleeps_ = sleeps;
  }

  bool is_saturated(uint64_t now) const { return in_a_row_ >= kEnough && now - last_ns_ < kForgottenNs; }

  /// So short are its iterations that seeing each would cost it more than a probe now and then.
  bool is_too_short(uint64_t now) const { return now < short_until_ns_; }

 private:
  static constexpr uint64_t kForgottenNs = 1'000'000'000;
  static constexpr uint32_t kEnough = 3;
  static constexpr uint64_t kSomePolls = 4;
  // A hook costs a poll 80 to 350 ns, and 30 probes a second 1 to 5 % of a CPU.
  static constexpr uint64_t kShortNs = 5'000, kShortForNs = 10'000'000'000;

  uint64_t start_ns_ = 0;
  bool suspect_ = false;   // at the last look
  uint32_t in_a_row_ = 0;  // probes that showed it polling
  uint64_t last_ns_ = 0;   // ... and when the last one did
  uint64_t counted_since_ = 0, counted_ns_ = 0, polls_ = 0, sleeps_ = 0;
  uint64_t short_until_ns_ = 0;
};

}  // namespace looptrace

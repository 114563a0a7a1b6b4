// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace looptrace {

/// Whether a loop is busy because it always finds something to poll: without a hook its short iterations look
/// like one long one. Probes tell: soon after each was attached the loop polled, and went on at once. Such a
/// loop is probed later than others, which bounds what probes cost it. Times in ns, CLOCK_MONOTONIC.
class Saturation {
 public:
  /// A look at its present iteration, which began at `start_ns`; at a poll that returned at once if
  /// `entered`. The probe is attached since `hook_since` (0: it is not), and an iteration is suspect at the
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
  bool is_saturated(uint64_t now) const { return in_a_row_ >= kEnough && now - last_ns_ < kForgottenNs; }

 private:
  static constexpr uint64_t kForgottenNs = 1'000'000'000;
  static constexpr uint32_t kEnough = 3;

  uint64_t start_ns_ = 0;
  bool suspect_ = false;   // at the last look
  uint32_t in_a_row_ = 0;  // probes that showed it polling
  uint64_t last_ns_ = 0;   // ... and when the last one did
};

}  // namespace looptrace

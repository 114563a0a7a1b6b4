// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace looptrace {

/// Whether the probe is worth keeping for a loop once it is suspect: it is if the loop is slow indeed, time
/// and again. Many short iterations, which look like a long one without the probe, are none of them suspect
/// with it. Times in ns, CLOCK_MONOTONIC.
class Slowness {
 public:
  /// The loop is suspect. `exact`: the probe has seen this iteration from its begin on. True: keep the probe
  /// for a while.
  bool suspect(uint64_t now, bool exact) {
    if (exact) slow_until_ns_ = now + kSlowNs;
    if (now < slow_until_ns_) return true;
    if (now < quick_until_ns_) return false;
    quick_until_ns_ = now + kQuickNs;  // unless the probe shows otherwise while it is kept
    return true;
  }

 private:
  static constexpr uint64_t kSlowNs = 1'000'000'000, kQuickNs = 5'000'000'000;

  uint64_t slow_until_ns_ = 0, quick_until_ns_ = 0;
};

}  // namespace looptrace

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

#include "looptrace.h"

namespace looptrace {

// A slot as user space looks at it, while the kernel writes it. All times are CLOCK_MONOTONIC, in
// nanoseconds.

/// A copy of a slot that the kernel did not switch during the copying; nothing if it would not hold still.
std::optional<lt_slot> snapshot(const lt_slot& live);

/// Books the present state up to `now` in a copy, as the kernel will when it ends. How much of a segment was
/// spent in the run queue is not known before then: it counts as blocked. `hook_since`: Engine::hook_since().
void book_until(lt_slot& copy, uint64_t now, uint64_t hook_since);

struct BusyIdle {
  uint64_t busy_ns, idle_ns;
};

/// Since the slot was taken, the present state included up to `now`.
BusyIdle busy_and_idle(const lt_stats& stats, const lt_slot& slot, uint64_t now);

/// A poll that recurs; or that slept through all of our watching, if it is not what a waiting client does.
bool looks_like_loop(const lt_slot& slot);

}  // namespace looptrace

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <string>

#include "looptrace.h"

namespace looptrace {

/// What user space had no room for. Any thread.
struct QueueLosses {
  std::atomic<uint64_t> stalls{0}, stacks{0}, events{0};  ///< ring records that the worker was too late for
};

/// Events lost since the trace began, by the reason that records give; only what happened. `kernel` is
/// Engine::drops() and hooks_missed().
std::map<std::string, uint64_t> name_losses(const std::array<uint64_t, LT_NR_DROPS>& kernel,
                                            const QueueLosses& queue, uint64_t opens_refused,
                                            uint64_t orphan_stalls);

/// What a warning says of them: how many, and what can be done.
std::string loss_message(const std::string& reason, uint64_t more, uint64_t in_all);

}  // namespace looptrace

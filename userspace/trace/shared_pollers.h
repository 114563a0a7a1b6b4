// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <unordered_map>
#include <vector>

#include "looptrace.h"

namespace looptrace {

/// Finds threads of one process that poll the same epoll descriptor, as tokio's and Go's workers do: one of
/// them has it, the others are parked and not stalled.
///
/// All loops of a process are compared at once, and not for every stall: it may have thousands of both.
class SharedPollers {
 public:
  using SlotAt = std::function<lt_slot&(uint32_t index)>;
  explicit SharedPollers(SlotAt slot) : slot_(std::move(slot)) {}

  void found(uint32_t tgid, uint32_t index);
  void gone(uint32_t tgid, uint32_t index);

  /// Sets LT_SLOT_SHARED_POLLER in the slots of `tgid` that share. What changed in the last 100 ms without a
  /// loop that came may be missed.
  void mark(uint32_t tgid, uint64_t now_ns);
  /// Sets it in those that poll `epoll_fd`, of which a worker is known that waits for its turn.
  void share(uint32_t tgid, int32_t epoll_fd);

  std::vector<uint32_t> slots_of(uint32_t tgid) const;

 private:
  struct Process {
    std::vector<uint32_t> slots;
    uint64_t compared_ns = 0;  // 0 = not as they are now
  };
  SlotAt slot_;
  std::unordered_map<uint32_t, Process> processes_;
};

}  // namespace looptrace

// SPDX-License-Identifier: Apache-2.0
#include "trace/losses.h"

#include "bpf/engine.h"

namespace looptrace {

std::map<std::string, uint64_t> name_losses(const std::array<uint64_t, LT_NR_DROPS>& kernel,
                                            const QueueLosses& queue, uint64_t opens_refused,
                                            uint64_t orphan_stalls) {
  std::map<std::string, uint64_t> drops;
  for (uint32_t i = 0; i < LT_NR_DROPS; ++i) {
    // These two lose no event: the record has fewer stacks, and the account is mended.
    if (kernel[i] && i != LT_DROP_CAPTURE_BUDGET && i != LT_DROP_SWITCH_HEALED)
      drops[drop_name(static_cast<lt_drop>(i))] = kernel[i];
  }
  if (const uint64_t n = queue.stalls) drops["stall_queue_full"] = n;
  if (const uint64_t n = queue.stacks) drops["stack_queue_full"] = n;
  if (const uint64_t n = queue.events) drops["event_queue_full"] = n;
  if (opens_refused) drops["open_queue_full"] = opens_refused;
  if (orphan_stalls) drops["stall_of_unknown_loop"] = orphan_stalls;
  return drops;
}

std::string loss_message(const std::string& reason, uint64_t more, uint64_t in_all) {
  std::string what = std::to_string(more) + " more lost, " + std::to_string(in_all) + " in all";
  if (reason == drop_name(LT_DROP_LOOPS_FULL)) what += "; raise --max-loops or name fewer targets";
  if (reason.ends_with("ring_full")) what += "; raise --ring-bytes or the threshold";
  if (reason == drop_name(LT_DROP_HOOK_MISSED))
    what += "; iterations may have been merged, or parts of them misjudged";
  if (reason.ends_with("queue_full")) {
    what += "; the reader of the output is too slow, or stalls are too many: raise the threshold";
  }
  return what;
}

}  // namespace looptrace

// SPDX-License-Identifier: Apache-2.0
#include "trace/slot_view.h"

#include <cstring>

#include "ledger.h"
#include "loop_identity.h"

namespace looptrace {

std::optional<lt_slot> snapshot(const lt_slot& live) {
  for (int tries = 0; tries < 4; ++tries) {
    const uint64_t before = __atomic_load_n(&live.switches, __ATOMIC_ACQUIRE);
    lt_slot copy;
    std::memcpy(&copy, &live, sizeof copy);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (__atomic_load_n(&live.switches, __ATOMIC_ACQUIRE) == before) return copy;
  }
  return std::nullopt;
}

void book_until(lt_slot& s, uint64_t now, uint64_t hook_since) {
  const auto book_off = [&](uint64_t until) {
    if (const lt_off_segment seg = lt_switch_in(&s, until, 0); seg.blocked_ns)
      lt_book_wait(&s, seg.blocked_ns);
  };
  if (s.unsettled == LT_UNSETTLED_WAIT) book_off(s.in_ns);
  if (s.running) {
    lt_book_running(&s, now, hook_since);
  } else {
    s.wake_pid = 0;
    s.in_target.kind = LT_TARGET_NONE;
    s.in_target.fd = s.off_fd;
    book_off(now);
    lt_keep_stretch(&s.it, now);
  }
}

BusyIdle busy_and_idle(const lt_stats& stats, const lt_slot& s, uint64_t now) {
  BusyIdle sum{stats.busy_ns, stats.idle_ns};
  if (s.phase == LT_PHASE_BUSY && now > s.it.start_ns) sum.busy_ns += now - s.it.start_ns;
  if (s.phase == LT_PHASE_IDLE && now > s.poll_ns) sum.idle_ns += now - s.poll_ns;
  return sum;
}

bool looks_like_loop(const lt_slot& s) {
  if (s.confirmed) return true;
  return s.loop.seen && s.phase == LT_PHASE_IDLE && !lt_client_like(&s.loop.call);
}

}  // namespace looptrace

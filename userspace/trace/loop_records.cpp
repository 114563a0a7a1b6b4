// SPDX-License-Identifier: Apache-2.0
#include "trace/loop_records.h"

#include <algorithm>

#include "record/histogram.h"
#include "trace/clock.h"
#include "trace/slot_view.h"

namespace looptrace {

namespace {

constexpr HistogramShape kShape;  // the records' default
static_assert(kShape.min_bits == LT_HIST_MIN_BITS && kShape.sub_bits == LT_HIST_SUB_BITS &&
              kShape.max_bits == LT_HIST_MAX_BITS);

}  // namespace

void LoopRecords::begin(uint64_t now) {
  began_ns_ = now;
  hooked_before_ns_ = engine_.hooked_ns(now);
}

void LoopRecords::end(std::span<LoopState> loops, uint64_t now) {
  const uint64_t hooked = engine_.hooked_ns(now);
  for (LoopState& loop : loops) {
    if (loop.tid && !loop.silent()) emit(loop, now, hooked);
  }
  began_ns_ = now;
  hooked_before_ns_ = hooked;
}

void LoopRecords::last_of(LoopState& loop, uint64_t now) {
  if (!loop.silent()) emit(loop, now, engine_.hooked_ns(now));
}

void LoopRecords::go_on(std::span<LoopState> loops, uint64_t now) {
  begin(now);
  for (LoopState& loop : loops) {
    if (!loop.tid) continue;
    loop.last_busy_ns = engine_.stats(loop.slot).busy_ns;
    loop.last_idle_ns = engine_.stats(loop.slot).idle_ns;
  }
}

void LoopRecords::emit(LoopState& loop, uint64_t now, uint64_t hooked) {
  const auto s = snapshot(engine_.slot(loop.slot));
  if (!s || !s->confirmed || s->generation - loop.generation > 1) return;
  const lt_stats stats = engine_.stats(loop.slot);
  const auto [busy, idle] = busy_and_idle(stats, *s, now);

  LoopRecord r;
  r.time_ns = clock_ns(CLOCK_REALTIME);
  r.interval_ns = now - began_ns_;
  r.hooked_ns = std::min(r.interval_ns, hooked - hooked_before_ns_);
  const TracedProcess& process = processes_.get(loop.tgid, s->start_boottime);
  r.process = process.info;
  r.container = process.container;
  r.service = process.service;
  r.thread_id = loop.tid;
  r.thread_name = comm_text(s->comm);
  r.loop.kind = poll_kind_name(s->loop.call.kind);
  if (s->loop.call.fd >= 0) r.loop.fd = s->loop.call.fd;
  r.iterations = stats.iterations - loop.last.iterations;
  r.busy_ns = busy > loop.last_busy_ns ? busy - loop.last_busy_ns : 0;
  r.idle_ns = idle > loop.last_idle_ns ? idle - loop.last_idle_ns : 0;
  r.stalls = stats.stalls - loop.last.stalls;
  r.stall_ns = stats.stall_ns - loop.last.stall_ns;
  r.unconfirmed = stats.unconfirmed - loop.last.unconfirmed;
  r.stacks = loop.stacks.since(loop.last_stacks);
  loop.last_stacks = loop.stacks;
  if (r.hooked_ns) {
    r.iteration_counts = {loop.last.iteration_hist.since(stats.iteration_hist),
                          stats.iteration_sum_ns - loop.last.iteration_sum_ns};
    r.iteration = percentiles(kShape, r.iteration_counts.counts, stats.iteration_max_ns);
  }
  r.wakeup_counts = {loop.last.wakeup_hist.since(stats.wakeup_hist),
                     stats.wakeup_sum_ns - loop.last.wakeup_sum_ns};
  r.wakeup_delay = percentiles(kShape, r.wakeup_counts.counts, stats.wakeup_max_ns);
  loop.last.set(stats);
  loop.last_busy_ns = busy;
  loop.last_idle_ns = idle;
  emit_(r);
}

}  // namespace looptrace

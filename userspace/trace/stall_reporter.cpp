// SPDX-License-Identifier: Apache-2.0
#include "trace/stall_reporter.h"

#include <algorithm>
#include <utility>

#include "arch.h"
#include "ledger.h"
#include "loop_identity.h"
#include "trace/clock.h"
#include "trace/slot_view.h"

namespace looptrace {

StallReporter::StallReporter(Options options, Engine& engine, ProcFs procfs, ProcessTable& processes,
                             Assembler& assembler, Captures& captures, SharedPollers& shared_pollers,
                             Emit emit)
    : options_(std::move(options)),
      engine_(engine),
      procfs_(std::move(procfs)),
      processes_(processes),
      assembler_(assembler),
      captures_(captures),
      shared_pollers_(shared_pollers),
      emit_(std::move(emit)) {}

void StallReporter::emit(const Stall& stall) {
  if (stall.state == StallState::closed) ++emitted_;  // its open records are no stalls of their own
  emit_(stall);
}

// Frames of code that was mapped or made since the process was read: the next stack has their names.
Stall StallReporter::build(LoopState& loop, TracedProcess& process, const IterationView& view,
                           const char (&comm)[LT_COMM_LEN], std::string id) {
  bool stale = false;
  Stall stall = assembler_.build(loop, process, view, comm_text(comm), std::move(id), stale);
  if (stale && processes_.follows(process)) processes_.refresh(process, monotonic_ns());
  return stall;
}

uint64_t StallReporter::parked_ns(const LoopState& loop, const lt_slot& slot, const lt_iteration& it) const {
  if (!(slot.user_flags & LT_SLOT_SHARED_POLLER)) return 0;
  // Most of the time in one futex wait at the poll's own depth: the worker had nothing to do.
  for (uint32_t i = 0; i < std::min<uint32_t>(it.nwaits, LT_MAX_WAITS); ++i) {
    const lt_wait& w = it.waits[i];
    if (w.nr != LT_NR_futex || w.total_ns * 2 < it.part_ns[LT_PART_BLOCKED]) continue;
    for (const PendingStack& p : loop.pending) {
      if (std::find(p.ids.begin(), p.ids.end(), w.capture) == p.ids.end()) continue;
      return lt_parked(&slot, w.nr, p.capture.head.sp) ? w.total_ns : 0;
    }
    return w.capture ? 0 : w.total_ns;
  }
  return 0;
}

void StallReporter::closed(LoopState* loop, const lt_stall& record) {
  if (!loop) ++orphans_;
  if (!loop || loop->silent() || loop->cut_seq == record.it.seq) return;
  const lt_slot& slot = engine_.slot(loop->slot);
  if (record.poll_kind == LT_POLL_EPOLL) shared_pollers_.mark(loop->tgid, monotonic_ns());
  if (const uint64_t idle = parked_ns(*loop, slot, record.it)) {
    // The rest may have been a stall, of which is not known when it began.
    ++(record.end_ns - record.it.start_ns - idle < options_.threshold_ns ? parked_ : parked_and_busy_);
    return;
  }
  if (has_enough()) return;
  TracedProcess& process = processes_.get(loop->tgid, slot.start_boottime);
  const IterationView view{record.it,        record.end_ns,  record.ended_by,
                           record.poll_kind, record.poll_fd, false};
  emit(build(*loop, process, view, record.comm, id_of(*loop, record.it.seq)));
  loop->turn_to(record.it.seq + 1);  // thousands of loops may never stall again
}

// The loop's iteration that began then and goes on, if it is a stall already.
std::optional<StallReporter::Open> StallReporter::look_at(LoopState& loop, uint64_t start_ns) {
  const auto s = snapshot(engine_.slot(loop.slot));
  if (!s || s->generation != loop.generation || s->phase != LT_PHASE_BUSY || s->it.start_ns != start_ns ||
      !s->confirmed)
    return std::nullopt;
  Open open{*s, *s, monotonic_ns()};
  const uint64_t age = open.now_ns - start_ns;
  if (age < options_.threshold_ns) return std::nullopt;
  if (!s->running && s->off_reason == LT_OFF_BLOCKED && s->off_fd >= 0) captures_.keep_target(loop, *s);
  book_until(open.booked, open.now_ns, engine_.hook_since());
  if (lt_judge(&open.booked.it, age, options_.threshold_ns, options_.believes_apparent) != LT_IS_STALL)
    return std::nullopt;
  return open;
}

bool StallReporter::polls_what_is_gone(const LoopState& loop, int32_t fd) const {
  const auto link = procfs_.link(static_cast<pid_t>(loop.tgid), "fd/" + std::to_string(fd));
  return link && link->find("eventpoll") == std::string::npos;
}

uint64_t StallReporter::open(LoopState& loop, uint64_t start_ns) {
  lt_slot& live = engine_.slot(loop.slot);
  const auto open = look_at(loop, start_ns);
  // Over, or no stall yet.
  if (!open) return engine_.pulses()[loop.slot] == start_ns ? 0 : UINT64_MAX;
  const lt_slot& booked = open->booked;
  const lt_slot& seen = open->seen;
  const uint64_t now = open->now_ns;
  uint64_t mark = options_.threshold_ns;
  while (mark * 10 <= now - start_ns) mark *= 10;
  if (loop.open_seq == booked.it.seq && loop.reported_mark_ns >= mark) return mark;
  if (booked.loop.call.kind == LT_POLL_EPOLL) {
    shared_pollers_.mark(loop.tgid, now);
    // A loop whose epoll fd is gone has ended; what runs now is something else.
    if (mark > options_.threshold_ns && polls_what_is_gone(loop, booked.loop.call.fd)) {
      live.user_flags |= LT_SLOT_RELEARN;
      return UINT64_MAX;
    }
  }
  TracedProcess& process = processes_.get(loop.tgid, booked.start_boottime);
  if (!seen.running && seen.off_reason == LT_OFF_BLOCKED) captures_.look_at_blocked(loop, process, seen);
  if (parked_ns(loop, live, booked.it)) return 0;
  if (has_enough()) return UINT64_MAX;
  if (loop.open_seq != booked.it.seq) {
    loop.open_seq = booked.it.seq;
    loop.open_id = next_id();
    loop.open_time_ns = 0;
  }
  loop.reported_mark_ns = mark;
  const lt_poll_call& call = booked.loop.call;
  emit(build(loop, process, {booked.it, now, LT_ENDED_POLL, call.kind, call.fd, true}, booked.comm,
             loop.open_id));
  return mark;
}

uint64_t StallReporter::cut(std::span<LoopState> loops, uint64_t began_before_ns) {
  uint64_t cut = 0;
  const auto pulses = engine_.pulses();
  for (LoopState& loop : loops) {
    if (!loop.tid || loop.silent()) continue;
    const uint64_t start = pulses[loop.slot];
    if (!start || start >= began_before_ns) continue;
    const auto open = look_at(loop, start);
    if (!open || loop.cut_seq == open->booked.it.seq) continue;
    loop.cut_seq = open->booked.it.seq;
    TracedProcess& process = processes_.get(loop.tgid, open->booked.start_boottime);
    const lt_poll_call& call = open->booked.loop.call;
    Stall stall =
        build(loop, process, {open->booked.it, open->now_ns, LT_ENDED_POLL, call.kind, call.fd, false},
              open->booked.comm, id_of(loop, loop.cut_seq));
    stall.ended_by = "window";
    emit(stall);
    ++cut;
  }
  return cut;
}

}  // namespace looptrace

// SPDX-License-Identifier: Apache-2.0
#include "trace/captures.h"

#include <algorithm>
#include <utility>

#include "arch.h"
#include "ledger.h"
#include "targets/fd_target.h"
#include "trace/blocked_stack.h"
#include "trace/clock.h"
#include "trace/eval_frames.h"
#include "trace/slot_view.h"

namespace looptrace {

namespace {

/// The walk wanted what is not there now and may be read from outside: tables, or memory of the target.
bool lacks_memory(uint32_t walk_status) {
  return walk_status == LT_UNWIND_OFF || walk_status == LT_UNWIND_READ_FAULT ||
         walk_status == kInterpreterFault || walk_status == kInterpreterMismatch;
}

// While the objects that the frames point to are where they were.
void name_javascript(RawCapture& c, const TracedProcess* process) {
  if (!process || !process->runtime) {
    c.v8.clear();
    return;
  }
  const bool interrupted = c.head.reason == LT_CAPTURE_SAMPLE && c.head.nr < 0;
  c.javascript = process->runtime->name_frames({c.user, c.v8, interrupted, c.head.r9, c.head.r15});
}

}  // namespace

void Captures::add(RawCapture c, LoopState& loop) {
  lt_slot& slot = engine_.slot(loop.slot);
  TracedProcess* process = processes_.find(loop.tgid);
  if (process && process->runtime && process->modules)
    end_at_greenlet(*process->runtime, *process->modules,
                    {slot.py_states[0] != 0, c.head.py_status, c.python}, c.head.nr < 0, c.user,
                    c.head.unwind_status);
  const bool in_new_code = process && c.head.unwind_status == LT_UNWIND_NO_MODULE && refresh(*process);
  if (process && process->runtime) check_interpreter(c, loop, *process);
  // Taken before the process's tables were there, or those of a file, or of memory that is not: while the
  // thread is still blocked, its stack is too. Its record may be open already, and not looked at again for
  // long.
  if ((lacks_memory(walk_status(c.head)) || in_new_code) && c.head.reason == LT_CAPTURE_SWITCH && process) {
    const auto now = snapshot(slot);
    if (now && now->off_capture == c.head.id && now->phase == LT_PHASE_BUSY &&
        now->it.seq == c.head.seq) {  // back in its poll it sleeps too, and keeps that capture's id
      if (auto stack = walk_blocked(*process, *now, slot)) std::move(*stack).move_into(c);
    }
  }
  see_task(c, loop);
  if (!c.v8.empty() && c.javascript.empty()) name_javascript(c, process);
  const bool in_futex = c.head.reason == LT_CAPTURE_SWITCH && c.head.nr == LT_NR_futex;
  const uint64_t id = c.head.id;
  assembler_.add_capture(loop, std::move(c), slot);
  if (!in_futex) return;
  if (const auto now = snapshot(slot); now && now->off_capture == id) see_holder(loop, *now);
}

// Code of a file that was loaded since the process was read.
bool Captures::refresh(TracedProcess& process) {
  const uint64_t before = process.loaded_ns;
  if (processes_.follows(process)) processes_.refresh(process, monotonic_ns());
  return process.loaded_ns != before;
}

// BPF walks the states that it was told of. Where the thread has entered another interpreter since, its
// native stack shows it.
void Captures::check_interpreter(RawCapture& c, LoopState& loop, const TracedProcess& process) {
  lt_slot& slot = engine_.slot(loop.slot);
  Runtime& runtime = *process.runtime;
  if (!slot.py_states[0]) renew_states(runtime, {}, slot);
  if (c.head.py_status == LT_PY_FULL || !process.modules) return;
  const auto evals = match_eval_frames(runtime, {c.user, c.head.nr < 0}, c.python);
  const bool whole = c.head.unwind_status == LT_UNWIND_END;
  const bool agree = whole ? evals.agree() : evals.native <= evals.begun + evals.entering;
  if (agree && !evals.entering && c.head.py_status == LT_PY_END) return;
  // One that was taken before the last look does not tell that the look was in vain.
  LastLook& look = loop.states_look;
  bool renewed = false;
  const uint64_t now = monotonic_ns();
  if (c.head.hdr.ts_ns > look.at_ns && now >= look.again_ns) {
    look.at_ns = now;
    renewed = renew_states(runtime, {c.head.sp, evals.native}, slot).has_value();
    look.ended(monotonic_ns(), !agree && !renewed);
  }
  if (c.head.py_status == LT_PY_END && (renewed || !agree)) c.head.py_status = LT_PY_MISMATCH;
}

// For whom the frames ran: BPF has sent it right before. It does not know where to look until a capture has
// met asyncio's functions; of those taken before, it is read while the thread is still blocked there.
void Captures::see_task(RawCapture& c, LoopState& loop) {
  const auto seen = std::exchange(loop.task, std::nullopt);
  TracedProcess* process = processes_.find(loop.tgid);
  if (!process || !process->runtime) return;
  Runtime& runtime = *process->runtime;
  if (seen && seen->id == c.head.id) c.task = seen;
  if (runtime.learn(c.python)) {
    lt_process config{};
    runtime.configure(config);
    engine_.set_interpreter(loop.tgid, config.py);
    process->learned_ns = monotonic_ns();
  }
  const lt_slot& slot = engine_.slot(loop.slot);
  const uint64_t switches = slot.switches;
  if (c.head.hdr.ts_ns < process->learned_ns && !slot.running && slot.off_capture == c.head.id) {
    const auto late = runtime.see_task(states_of(slot));
    if (late && slot.switches == switches) c.task = late;
  }
  if (c.task) c.task_created_at = runtime.task_created_at(*c.task);
}

// The wait for a global lock is cut into short ones, each with its capture, so most of them are seen soon
// enough.
void Captures::see_holder(LoopState& loop, const lt_slot& s) {
  TracedProcess* process = processes_.find(loop.tgid);
  if (s.running || s.off_nr != LT_NR_futex || !process || !process->runtime) return;
  auto holder = process->runtime->global_lock_holder(s.off_arg0);
  // Only if it has waited all the while.
  if (!holder || engine_.slot(loop.slot).switches != s.switches) return;
  if (static_cast<uint32_t>(holder->tid) != loop.tid)
    assembler_.add_holder(loop, s.it.seq, std::move(*holder));
}

void Captures::keep_target(LoopState& loop, const lt_slot& s) {
  const uint64_t key = lt_wait_key(s.off_nr, s.off_arg0, s.off_fd);
  if (loop.seq == s.it.seq) {
    for (const LiveTarget& t : loop.live_targets) {
      if (t.nr == s.off_nr && t.key == key) return;
    }
    if (loop.live_targets.size() >= LT_MAX_WAITS) return;
  }
  auto target = resolve_fd(procfs_, static_cast<pid_t>(loop.tgid), s.off_fd);
  // The descriptor cannot have changed under a thread that blocks in it and has not run meanwhile.
  if (!target || engine_.slot(loop.slot).switches != s.switches) return;
  loop.turn_to(s.it.seq);
  loop.live_targets.push_back({s.off_nr, key, std::move(*target)});
}

void Captures::look_at_blocked(LoopState& loop, TracedProcess& process, const lt_slot& s) {
  if (s.off_capture) {
    mend(loop, process, s);
  } else {
    take_stack(loop, process, s);
  }
  see_holder(loop, s);
}

// BPF's budget for captures was spent.
void Captures::take_stack(LoopState& loop, const TracedProcess& process, const lt_slot& s) {
  const uint64_t key = lt_wait_key(s.off_nr, s.off_arg0, s.off_fd);
  for (const LiveStack& l : loop.live) {
    if (l.nr == s.off_nr && l.key == key) return;
  }
  if (loop.live.size() >= LT_MAX_WAITS) return;
  auto stack = walk_blocked(process, s, engine_.slot(loop.slot));
  if (!stack) return;
  LiveStack live;
  live.nr = s.off_nr;
  live.key = key;
  RawCapture& c = live.capture;
  c.head = {};
  c.head.seq = s.it.seq;
  c.head.reason = LT_CAPTURE_SWITCH;
  c.head.nr = s.off_nr;
  c.head.sp = s.off_sp;
  std::move(*stack).move_into(c);
  assembler_.count_stack(loop, walk_status(c.head));
  loop.turn_to(s.it.seq);
  loop.live.push_back(std::move(live));
}

// The capture of a process whose tables were not built yet has the innermost frame only; that of a stack in
// part swapped out, or through code compiled just now, ends early: walks the stack anew, from outside, where
// pages are read in.
void Captures::mend(LoopState& loop, TracedProcess& process, lt_slot s) {
  if (loop.seq != s.it.seq) return;
  const auto p = std::find_if(loop.pending.begin(), loop.pending.end(), [&](const PendingStack& pending) {
    return std::find(pending.ids.begin(), pending.ids.end(), s.off_capture) != pending.ids.end();
  });
  if (p == loop.pending.end()) return;
  RawCapture& c = p->capture;
  const uint32_t status = walk_status(c.head);
  const bool too_deep = status == LT_UNWIND_FULL || status == kInterpreterFull;
  const bool in_code = process.makes_code && status != LT_UNWIND_END && !too_deep;
  if (ended_in_made_code(c, process)) processes_.refresh(process, monotonic_ns());
  if (!in_code && !lacks_memory(status) && !(process.runtime && c.python.empty() && c.v8.empty())) return;
  if (auto stack = walk_blocked(process, s, engine_.slot(loop.slot))) std::move(*stack).move_into(c);
  assembler_.count_mended(loop, status, walk_status(c.head));
}

}  // namespace looptrace

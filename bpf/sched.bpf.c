// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The scheduler's view: the ledger, the end of a poll that slept, what was waited for, who ended the wait. */
#include "common.bpf.h"

/* Shorter waits keep no target: finding it takes a microsecond. Late iterations are rare enough to pay more.
 */
#define SHORT_WAIT_NS 1000000
#define SHORT_LATE_WAIT_NS 50000

/* Time that the thread's cgroups, up to four levels, have spent throttled so far. */
static __always_inline u64 throttled_time(struct task_struct *t)
{
	struct task_group *tg = t->sched_task_group;
	u64 sum = 0;
	int i;

	if (!bpf_core_field_exists(struct task_group, cfs_bandwidth) ||
	    !bpf_core_field_exists(struct cfs_bandwidth, throttled_time))
		return 0;
	for (i = 0; i < 4 && tg; i++) {
		sum += tg->cfs_bandwidth.throttled_time;
		tg = tg->parent;
	}
	return sum;
}

/* Books the last off-CPU segment of the current thread, now that the scheduler has told its run-queue part.
 */
int settle_current(u32 index)
{
	struct lt_slot *s = bpf_map_lookup_elem(&slots, &index);
	struct lt_off_segment seg;
	struct lt_stats *st;
	u32 unsettled;
	u64 queued;

	if (!s)
		return 0;
	unsettled = s->unsettled;
	s->unsettled = LT_SETTLED;
	queued = bpf_get_current_task_btf()->sched_info.run_delay - s->off_run_delay;
	if (unsettled == LT_UNSETTLED_POLL) {
		st = bpf_map_lookup_elem(&stats, &index);
		if (st && s->confirmed) {
			u32 bucket = lt_hist_bucket(queued);

			if (s->in_ns > s->poll_ns)
				st->idle_ns += s->in_ns - s->poll_ns;
			st->slept++;
			if (bucket < LT_HIST_BUCKETS)
				st->wakeup_hist[bucket]++;
			st->wakeup_sum_ns += queued;
			if (queued > st->wakeup_max_ns)
				st->wakeup_max_ns = queued;
		}
		return 0;
	}
	seg = lt_switch_in(s, s->in_ns, queued);
	if (seg.runqueue_ns) {
		u64 throttled = s->in_throttled < seg.runqueue_ns ? s->in_throttled : seg.runqueue_ns;

		s->it.throttled_ns += throttled;
		if (seg.runqueue_ns > s->it.longest_runqueue_ns) {
			s->it.longest_runqueue_ns = seg.runqueue_ns;
			s->it.preempted_by_pid = s->in_prev_pid;
			s->it.preempted_by_tid = s->in_prev_tid;
			__builtin_memcpy(s->it.preempted_by_comm, s->in_prev_comm, LT_COMM_LEN);
		}
	}
	if (seg.blocked_ns)
		lt_book_wait(s, seg.blocked_ns);
	return 0;
}

/* The descriptor that poll() or select() waits on, if it is plain which. */
static __always_inline s32 polled_fd(u32 kind, struct pt_regs *regs)
{
	struct {
		s32 fd;
		short events, revents;
	} first;
	u64 bits = 0;

	if (kind == LT_POLL_POLL) {
		if (regs->si == 0 || bpf_probe_read_user(&first, sizeof(first), (void *)regs->di))
			return -1;
		return first.fd;
	}
	if (kind != LT_POLL_SELECT || !regs->si || regs->di == 0 || regs->di > 64)
		return -1;
	if (bpf_probe_read_user(&bits, sizeof(bits), (void *)regs->si) || !bits)
		return -1;
	return (s32)lt_highest_bit(bits & -bits); /* the lowest that is set */
}

/* Verified once, not on every path of a switch. */
__noinline int identify_poll(struct lt_slot *s, const struct lt_poll_call *call, u64 now)
{
	return s && call ? lt_identify(s, call, now) : LT_POLL_NESTED;
}

/* `next` is on its CPU since `now`. prev: who left it, 0 where that is not known. */
static __always_inline void arrive(struct task_struct *next, struct task_struct *prev, struct lt_slot *s,
				   u32 index, u64 now)
{
	s->switches++;
	s->running = 1;
	s->in_ns = now;
	s->in_prev_pid = 0;
	s->in_throttled = 0;
	s->in_target.kind = LT_TARGET_NONE;
	s->in_target.fd = s->off_fd;
	if (s->phase == LT_PHASE_IDLE && s->off_reason != LT_OFF_STOPPED) {
		lt_begin(s, now, LT_BEGAN_SLEPT);
		s->unsettled = LT_UNSETTLED_POLL;
		pulse(index, now);
		return;
	}
	if (s->phase == LT_PHASE_IDLE) {
		/* Stopped while it polled: it would have served, had it not been stopped. The time is an
		 * iteration's. */
		lt_begin(s, s->off_ns, LT_BEGAN_STOPPED);
		s->off_reason = LT_OFF_STOPPED;
		s->off_prev_state = LT_TASK_STOPPED_OR_TRACED;
		s->off_fd = -1;
		s->off_capture = 0;
		pulse(index, s->off_ns);
	}
	if (s->phase != LT_PHASE_BUSY || s->off_reason == LT_OFF_NONE)
		return;
	s->unsettled = LT_UNSETTLED_WAIT;
	if (now - s->off_ns < (now - s->it.start_ns < suspect_ns ? SHORT_WAIT_NS : SHORT_LATE_WAIT_NS))
		return;
	/* Now, before it runs on: a client closes its connection right after the answer. */
	if (s->off_reason == LT_OFF_BLOCKED && s->off_fd >= 0)
		resolve_target(index, (u64)BPF_CORE_READ(next, files));
	if (now - s->off_ns < SHORT_WAIT_NS)
		return;
	s->in_throttled = throttled_time(next) - s->off_throttled;
	if (now - s->off_ns >= LT_LONG_WAIT_NS)
		send_bare(LT_REC_SUSPECT, s, index, now); /* it had no probe meanwhile */
	if (!prev)
		return;
	s->in_prev_pid = prev->tgid;
	s->in_prev_tid = prev->pid;
	bpf_probe_read_kernel(s->in_prev_comm, sizeof(s->in_prev_comm), prev->comm);
}

/*
 * While somebody changes a map by bpf(2), the kernel runs no program on a tracepoint of perf's on that CPU;
 * also while he is preempted there. Who runs on the CPU meanwhile polls unseen by held_enter. The canary
 * falls silent with it, at the switches where such a segment begins and ends: on_switch is no program of
 * perf's.
 */
SEC("tracepoint/sched/sched_switch")
int canary(void *ctx)
{
	u32 zero = 0;
	u64 *runs = bpf_map_lookup_elem(&canaries, &zero);

	if (runs)
		++*runs;
	return 0;
}

static __always_inline u64 canary_runs(void)
{
	u32 zero = 0;
	u64 *runs = bpf_map_lookup_elem(&canaries, &zero);

	return runs ? *runs : 0;
}

/*
 * A switch-in that we were not told of: some sandboxes' kernels are silent when their own agent leaves the
 * CPU (seen on 6.18, with every tracer: once in some thousand switches). Each would book a wait as on-CPU
 * time, or lose an iteration. The scheduler stamps each arrival itself, in its own clock.
 */
static __always_inline void heal(struct task_struct *t, struct lt_slot *s, u32 index, u64 now)
{
	if (s->running || s->phase == LT_PHASE_LEARNING)
		return;
	count_drop(LT_DROP_SWITCH_HEALED);
	arrive(t, 0, s, index, lt_missed_arrival(s->off_ns, now, t->sched_info.last_arrival, s->clock_skew));
	if (!s->clock_skew)
		lt_doubt(&s->it, now); /* it was away for some part of this, seemingly on its CPU */
}

static __always_inline void switch_in(struct task_struct *next, struct task_struct *prev, struct lt_slot *s,
				      u32 index, u64 now)
{
	s->blind = 0;
	s->in_canary = canary_runs();
	if (!s->in_hook) {
		arrive(next, prev, s, index, now);
		return;
	}
	s->switches++;
	if (s->hook_left_ns)
		__sync_fetch_and_add(&s->hook_off_ns, now - s->hook_left_ns);
	s->hook_left_ns = 0;
}

static __always_inline void switch_out(void *ctx, struct task_struct *prev, struct lt_slot *s, u32 index,
				       u32 state, u64 now)
{
	struct pt_regs *regs = user_regs(prev);
	s32 nr = regs->orig_ax;
	u32 kind = lt_poll_kind(nr, regs->dx, regs->r10);
	u32 verdict = LT_POLL_NESTED;
	struct lt_poll_call call = {};
	u64 since;

	s->switches++;
	if (s->in_hook) {
		s->hook_left_ns = now;
		return;
	}
	s->blind = s->running && held && canary_runs() == s->in_canary;
	heal(prev, s, index, now);
	settle(s, index);
	s->running = 0;
	if (s->in_ns)
		s->clock_skew = s->in_ns - prev->sched_info.last_arrival;
	s->off_run_delay = prev->sched_info.run_delay;
	if (kind) {
		current_poll_call(s, index, regs, kind, &call);
		verdict = identify_poll(s, &call, now);
	} else if (lt_parked(s, nr, regs->sp)) {
		verdict = LT_POLL_OWN;
	}
	if (verdict != LT_POLL_NESTED) {
		pulse(index, 0);
		if (verdict == LT_POLL_TAKEOVER || s->phase == LT_PHASE_LEARNING) {
			/* LEARNING, and yet its own: the hooks were detached for a while. */
			s->poll_ns = now;
		} else if (s->phase == LT_PHASE_BUSY &&
			   !(s->it.in_poll && lt_saw_begin(&s->it, seen_since(s)))) {
			iteration_end(s, index, now, LT_ENDED_POLL);
			s->poll_ns = now;
		} /* else the hook closed the last iteration at this poll's entry, and this one never was */
		s->phase = LT_PHASE_IDLE;
		s->off_ns = now;
		s->off_nr = nr;
		s->off_reason = (state & LT_TASK_STOPPED_OR_TRACED) ? LT_OFF_STOPPED : LT_OFF_NONE;
		return;
	}
	if (s->phase != LT_PHASE_BUSY)
		return;

	s->it.in_poll = 0;
	since = seen_since(s);
	lt_switch_out(s, now, since,
		      state == 0			    ? LT_OFF_PREEMPTED
		      : (state & LT_TASK_STOPPED_OR_TRACED) ? LT_OFF_STOPPED
							    : LT_OFF_BLOCKED);
	s->off_nr = nr;
	s->off_arg0 = regs->di;
	s->off_arg1 = regs->si;
	s->off_ip = regs->ip;
	s->off_sp = regs->sp;
	s->off_bp = regs->bp;
	s->off_prev_state = state;
	s->wake_pid = 0;
	s->off_capture = 0;
	s->off_throttled = throttled_time(prev);
	s->off_fd = -1;
	if (s->off_reason == LT_OFF_PREEMPTED)
		return;
	s->off_fd = kind	      ? (call.fd >= 0 ? call.fd : polled_fd(kind, regs))
		    : lt_takes_fd(nr) ? (s32)regs->di
				      : -1;
	if (take_stacks) {
		/* Young iterations are mostly healthy: few captures. Old ones are worth ten times as many. */
		u64 cost = now - s->it.start_ns > suspect_ns ? capture_cost_ns / 10 : capture_cost_ns;

		struct capture_request request = {.now = now, .index = index, .reason = LT_CAPTURE_SWITCH};

		if (capture_cost_ns == LT_NO_CAPTURES)
			return;
		if (lt_budget(&s->capture_budget_ns, now, cost, 32 * cost))
			s->off_capture = capture(ctx, s, &request);
		else
			count_drop(LT_DROP_CAPTURE_BUDGET);
	}
}

/* For a thread that acts outside of the scheduler: current, so it runs. */
int heal_current(u32 index)
{
	struct lt_slot *s = bpf_map_lookup_elem(&slots, &index);

	if (s)
		heal(bpf_get_current_task_btf(), s, index, bpf_ktime_get_ns());
	return 0;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(on_switch, bool preempt, struct task_struct *prev, struct task_struct *next, unsigned int state)
{
	struct lt_slot *s;
	u32 index;
	u64 now = 0;

	s = slot_of(prev, &index);
	if (!s && state && prev->mm) {
		/* A thread that is not known sleeps: in a poll? */
		struct pt_regs *regs = user_regs(prev);

		if (lt_poll_kind((s32)regs->orig_ax, regs->dx, regs->r10))
			s = slot_take(prev, &index);
	}
	if (s) {
		now = bpf_ktime_get_ns();
		switch_out(ctx, prev, s, index, preempt ? 0 : state, now);
	}
	s = slot_of(next, &index);
	if (s)
		switch_in(next, prev, s, index, now ? now : bpf_ktime_get_ns());
	return 0;
}

#define PF_EXITING 0x4
#define FUTEX_PRIVATE_FLAG 128 /* only threads of the same process can wake it */

/*
 * Is the current task the one that ends this wait, or did an interrupt merely hit it? What it does tells:
 * it must be in a system call that can end such a wait (loopback delivers in the sender's own softirq).
 */
static __always_inline int is_waker(struct task_struct *waker, struct lt_slot *s)
{
	s32 nr = (s32)user_regs(waker)->orig_ax, waits_in = s->off_nr;

	if (lt_waits_for_child(waits_in)) /* vfork's wait ends at exec too */
		return (waker->flags & PF_EXITING) || nr == LT_NR_execve || nr == LT_NR_execveat;
	if (waits_in == LT_NR_futex)
		return ((u32)waker->tgid == s->tgid || !(s->off_arg1 & FUTEX_PRIVATE_FLAG)) &&
		       (nr == LT_NR_futex || (waker->flags & PF_EXITING));
	if (waits_in == LT_NR_nanosleep || waits_in == LT_NR_clock_nanosleep || waits_in < 0)
		return 0;
	if (lt_gives_data(nr))
		return 1;
	return (waker->flags & PF_EXITING) != 0; /* its descriptors close */
}

/* Attached while a loop is suspect: who ends its waits. */
SEC("tp_btf/sched_waking")
int BPF_PROG(on_waking, struct task_struct *t)
{
	struct task_struct *waker;
	struct lt_slot *s;
	u32 index;

	s = slot_of(t, &index);
	if (!s || s->phase != LT_PHASE_BUSY || s->running || s->off_reason != LT_OFF_BLOCKED)
		return 0;
	waker = bpf_get_current_task_btf();
	if (!waker->mm && !(waker->flags & PF_EXITING))
		return 0;
	if (!is_waker(waker, s))
		return 0;
	s->wake_pid = waker->tgid;
	s->wake_tid = waker->pid;
	bpf_probe_read_kernel(s->wake_comm, sizeof(s->wake_comm), waker->comm);
	return 0;
}

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A poll's entry: here an iteration ends, also when the poll returns at once. Three flavours of one body:
 * fentry costs other processes nothing and is attached for good where a test load succeeds; the probe is
 * attached while a loop is suspect; the polls' own tracepoints are held while a loop is saturated (or for
 * good, --hook always).
 */
#include "common.bpf.h"

/*
 * The time of this poll's entry. An fentry program can be preempted where the kernel is preemptible; what the
 * thread was off the CPU for before that time is booked first, what comes after it is not in it.
 */
static __always_inline u64 entry_time(struct lt_slot *s)
{
	u64 now = 0, off;
	int i;

	for (i = 0; i < 3; i++) {
		off = *(volatile u64 *)&s->hook_off_ns;
		if (off) {
			__sync_fetch_and_add(&s->hook_off_ns, -off);
			lt_book_preempted(s, off);
		}
		now = bpf_ktime_get_ns();
		if (!*(volatile u64 *)&s->hook_off_ns)
			break;
	}
	return now;
}

static __always_inline void leave_hook(struct lt_slot *s)
{
	u64 off = *(volatile u64 *)&s->hook_off_ns;

	if (off) {
		s->hook_off_ns = 0;
		lt_book_preempted(s, off);
	}
	*(volatile u64 *)&s->in_hook = 0;
}

/* fd: the call's first argument, -1 where it is not at hand. The registers are read only if that does not
 * tell which poll it is. */
static __always_inline int poll_entry(u32 kind, s32 fd)
{
	struct task_struct *t = bpf_get_current_task_btf();
	u32 index, verdict = LT_POLL_OWN;
	struct lt_slot *s;
	int suspect;
	u64 now;

	if (kind == LT_POLL_IO_URING) {
		struct pt_regs *regs = user_regs(t);

		if (!lt_poll_kind(LT_NR_io_uring_enter, regs->dx, regs->r10))
			return 0;
	}
	s = slot_of(t, &index);
	if (!s) {
		s = slot_take(t, &index);
		if (!s)
			return 0;
	}
	*(volatile u64 *)&s->in_hook = 1;
	settle(s, index);
	s->running = 1;
	now = entry_time(s);
	if (!lt_polls_its_set(s, kind, fd, now)) {
		struct lt_poll_call call = {};

		current_poll_call(s, index, user_regs(t), kind, &call);
		verdict = lt_identify(s, &call, now);
	}
	if (verdict == LT_POLL_NESTED) {
		s->it.in_poll = 0;
		leave_hook(s);
		return 0;
	}
	suspect = s->phase == LT_PHASE_BUSY && now - s->it.start_ns >= suspect_ns;
	if (s->phase == LT_PHASE_BUSY && verdict == LT_POLL_OWN)
		iteration_end(s, index, now, LT_ENDED_POLL);
	s->poll_ns = now;
	/* If it does not sleep it ends a microsecond from now: the next iteration begins here. */
	lt_begin(s, now, LT_BEGAN_ENTERED);
	pulse(index, now);
	leave_hook(s);
	/* Only who may be the reason for the probe: it is there for every loop, and a wake-up is dear.
	 * Saturated loops are looked at again soon anyway. */
	if (suspect && !s->saturated && s->probe_seen != probe) {
		s->probe_seen = probe;
		send_bare(LT_REC_POLLED, s, index, now);
	}
	return 0;
}

static __always_inline u32 kind_of_call(s32 nr)
{
	switch (nr) {
	case LT_NR_epoll_wait:
	case LT_NR_epoll_pwait:
	case LT_NR_epoll_pwait2:
		return LT_POLL_EPOLL;
	case LT_NR_poll:
	case LT_NR_ppoll:
		return LT_POLL_POLL;
	case LT_NR_select:
	case LT_NR_pselect6:
		return LT_POLL_SELECT;
	case LT_NR_io_uring_enter:
		return LT_POLL_IO_URING;
	}
	return LT_POLL_NONE;
}

/* A probe: on while a loop is suspect, see userspace/trace/watcher. Attached and detached in 0.2 ms
 * (attached again at once in 20), where the single tracepoints take 70 to 120 ms each to go; but while it is
 * on it costs every system call four times as much. */
SEC("raw_tp/sys_enter")
int probe_enter(struct bpf_raw_tracepoint_args *ctx)
{
	u32 kind = kind_of_call(ctx->args[1]);

	return kind && !held ? poll_entry(kind, -1) : 0;
}

/* What a sys_enter_* tracepoint gives, see its format file in tracefs. */
struct poll_tracepoint {
	u64 common;
	s32 nr; /* followed by four bytes of nothing */
	u64 args[6];
};

/* Attached to each of them. Some of their other fields differ. */
SEC("tracepoint")
int held_enter(struct poll_tracepoint *ctx)
{
	u32 kind = kind_of_call(ctx->nr);

	return kind && held ? poll_entry(kind, ctx->args[0]) : 0;
}

#define FUNCTION(call, kind)                                                                                 \
	SEC("fentry/__x64_sys_" #call)                                                                       \
	int BPF_PROG(fn_##call, struct pt_regs *regs) { return poll_entry(kind, regs->di); }

FUNCTION(epoll_wait, LT_POLL_EPOLL)
FUNCTION(epoll_pwait, LT_POLL_EPOLL)
FUNCTION(epoll_pwait2, LT_POLL_EPOLL)
FUNCTION(poll, LT_POLL_POLL)
FUNCTION(ppoll, LT_POLL_POLL)
FUNCTION(select, LT_POLL_SELECT)
FUNCTION(pselect6, LT_POLL_SELECT)
FUNCTION(io_uring_enter, LT_POLL_IO_URING)

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * A poll's entry: here an iteration ends, also when the poll returns at once. Three flavours of one body:
 * fentry costs other processes nothing and is attached for good where a test load succeeds; the syscalls'
 * own tracepoints (--hook always) tax every system call of the host by 40 ns; the probe is attached only
 * while a loop is suspect.
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

static __always_inline int poll_entry(u32 kind)
{
	struct task_struct *t = bpf_get_current_task_btf();
	struct pt_regs *regs = user_regs(t);
	struct lt_poll_call call = {};
	struct lt_slot *s;
	u32 index, verdict;
	int suspect;
	u64 now;

	if (kind == LT_POLL_IO_URING && !lt_poll_kind(LT_NR_io_uring_enter, regs->dx, regs->r10))
		return 0;
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
	current_poll_call(s, index, regs, kind, &call);
	verdict = lt_identify(s, &call, now);
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
	/* Only who may be the reason for the probe: it is there for every loop, and a wake-up is dear. */
	if (suspect && s->probe_seen != probe) {
		s->probe_seen = probe;
		send_bare(LT_REC_POLLED, s, index, now);
	}
	return 0;
}

/* A probe: on for a millisecond or as long as a suspect loop does not poll. Attached and detached in 0.15 ms,
 * where the single tracepoints take 70 ms to go; but while it is on it costs every system call four times as
 * much. */
SEC("raw_tp/sys_enter")
int probe_enter(struct bpf_raw_tracepoint_args *ctx)
{
	u32 kind;

	switch (ctx->args[1]) {
	case LT_NR_epoll_wait:
	case LT_NR_epoll_pwait:
	case LT_NR_epoll_pwait2:
		kind = LT_POLL_EPOLL;
		break;
	case LT_NR_poll:
	case LT_NR_ppoll:
		kind = LT_POLL_POLL;
		break;
	case LT_NR_select:
	case LT_NR_pselect6:
		kind = LT_POLL_SELECT;
		break;
	case LT_NR_io_uring_enter:
		kind = LT_POLL_IO_URING;
		break;
	default:
		return 0;
	}
	return poll_entry(kind);
}

SEC("tracepoint/syscalls/sys_enter_epoll_wait") int tp_epoll_wait(void *ctx)
{
	return poll_entry(LT_POLL_EPOLL);
}
SEC("tracepoint/syscalls/sys_enter_epoll_pwait") int tp_epoll_pwait(void *ctx)
{
	return poll_entry(LT_POLL_EPOLL);
}
SEC("tracepoint/syscalls/sys_enter_epoll_pwait2") int tp_epoll_pwait2(void *ctx)
{
	return poll_entry(LT_POLL_EPOLL);
}
SEC("tracepoint/syscalls/sys_enter_poll") int tp_poll(void *ctx) { return poll_entry(LT_POLL_POLL); }
SEC("tracepoint/syscalls/sys_enter_ppoll") int tp_ppoll(void *ctx) { return poll_entry(LT_POLL_POLL); }
SEC("tracepoint/syscalls/sys_enter_select") int tp_select(void *ctx) { return poll_entry(LT_POLL_SELECT); }
SEC("tracepoint/syscalls/sys_enter_pselect6") int tp_pselect6(void *ctx)
{
	return poll_entry(LT_POLL_SELECT);
}
SEC("tracepoint/syscalls/sys_enter_io_uring_enter") int tp_io_uring_enter(void *ctx)
{
	return poll_entry(LT_POLL_IO_URING);
}

SEC("fentry/__x64_sys_epoll_wait") int BPF_PROG(fn_epoll_wait) { return poll_entry(LT_POLL_EPOLL); }
SEC("fentry/__x64_sys_epoll_pwait") int BPF_PROG(fn_epoll_pwait) { return poll_entry(LT_POLL_EPOLL); }
SEC("fentry/__x64_sys_epoll_pwait2") int BPF_PROG(fn_epoll_pwait2) { return poll_entry(LT_POLL_EPOLL); }
SEC("fentry/__x64_sys_poll") int BPF_PROG(fn_poll) { return poll_entry(LT_POLL_POLL); }
SEC("fentry/__x64_sys_ppoll") int BPF_PROG(fn_ppoll) { return poll_entry(LT_POLL_POLL); }
SEC("fentry/__x64_sys_select") int BPF_PROG(fn_select) { return poll_entry(LT_POLL_SELECT); }
SEC("fentry/__x64_sys_pselect6") int BPF_PROG(fn_pselect6) { return poll_entry(LT_POLL_SELECT); }
SEC("fentry/__x64_sys_io_uring_enter") int BPF_PROG(fn_io_uring_enter)
{
	return poll_entry(LT_POLL_IO_URING);
}

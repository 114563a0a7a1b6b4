// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Life of a loop thread: it is found when it polls, it ends with exit or exec. */
#include "common.bpf.h"

#define PF_KTHREAD 0x00200000

static __always_inline void send_loop_event(u32 kind, struct lt_slot *s, u32 index, u64 now, u32 drop)
{
	struct lt_loop_event *e = bpf_ringbuf_reserve(&ring, sizeof(*e), 0);

	if (!e) {
		count_drop(drop);
		return;
	}
	fill_header(&e->hdr, kind, sizeof(*e), now, index, s->tgid, s->tid);
	e->generation = s->generation;
	/* Found: user space has tables to build before the first stall. */
	bpf_ringbuf_submit(e, kind == LT_REC_LOOP_FOUND ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
}

/* Gives a slot to a thread of a target that was seen polling. Null if it is no target's. */
__hidden struct lt_slot *slot_take(struct task_struct *t, u32 *index)
{
	struct slot_ref *ref;
	struct lt_slot *s;
	u32 tgid = t->tgid;
	u32 i;

	if (tgid == own_tgid || (t->flags & PF_KTHREAD))
		return 0;
	if (!every_process && !bpf_map_lookup_elem(&targets, &tgid))
		return 0;
	if (bpf_map_pop_elem(&free_slots, &i)) {
		count_drop(LT_DROP_LOOPS_FULL);
		return 0;
	}
	ref = bpf_task_storage_get(&slot_refs, t, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	s = bpf_map_lookup_elem(&slots, &i);
	if (!ref || !s) {
		bpf_map_push_elem(&free_slots, &i, 0);
		count_drop(LT_DROP_STORAGE);
		return 0;
	}
	ref->index = i;
	/* User space zeroed the slot before it handed the index out. */
	s->tgid = tgid;
	s->tid = t->pid;
	s->start_boottime = t->group_leader->start_boottime;
	s->exec_id = t->self_exec_id;
	s->census = census;
	bpf_probe_read_kernel(s->comm, sizeof(s->comm), t->comm);
	s->generation++;
	*index = i;
	send_loop_event(LT_REC_LOOP_FOUND, s, i, bpf_ktime_get_ns(), LT_DROP_PROCESS_RING_FULL);
	return s;
}

static __always_inline void send_stall(struct lt_slot *s, u32 index, u64 now, u32 ended_by)
{
	struct lt_stall *e = bpf_ringbuf_reserve(&ring, sizeof(*e), 0);

	if (!e) {
		count_drop(LT_DROP_STALL_RING_FULL);
		return;
	}
	fill_header(&e->hdr, LT_REC_STALL, sizeof(*e), now, index, s->tgid, s->tid);
	e->generation = s->generation;
	e->end_ns = now;
	e->ended_by = ended_by;
	e->poll_kind = s->loop.call.kind;
	e->poll_fd = s->loop.call.fd;
	e->pad = 0;
	__builtin_memcpy(e->comm, s->comm, sizeof(e->comm));
	bpf_probe_read_kernel(&e->it, sizeof(e->it), &s->it);
	bpf_ringbuf_submit(e, wake_flag());
}

int stall_end(u32 index, u64 now, u64 duration, u32 ended_by)
{
	struct lt_stats *st = bpf_map_lookup_elem(&stats, &index);
	struct lt_slot *s = bpf_map_lookup_elem(&slots, &index);

	if (!s || !st)
		return 0;
	if (lt_judge(&s->it, duration, threshold_ns, trust_hookless) == LT_UNCONFIRMED) {
		st->unconfirmed++;
		return 0;
	}
	st->stalls++;
	st->stall_ns += duration;
	send_stall(s, index, now, ended_by);
	return 0;
}

static __always_inline void send_process(struct task_struct *t, u32 change, u32 parent, const char *comm)
{
	struct lt_process_event *e = bpf_ringbuf_reserve(&ring, sizeof(*e), 0);

	if (!e) {
		count_drop(LT_DROP_PROCESS_RING_FULL);
		return;
	}
	fill_header(&e->hdr, LT_REC_PROCESS, sizeof(*e), bpf_ktime_get_ns(), LT_NO_SLOT, t->tgid, t->pid);
	e->change = change;
	e->parent = parent;
	bpf_probe_read_kernel(e->comm, sizeof(e->comm), comm);
	bpf_ringbuf_submit(e, change == LT_PROC_EXIT ? BPF_RB_NO_WAKEUP : BPF_RB_FORCE_WAKEUP);
}

/* Takes the slot from a thread that ends or becomes another program. */
static __always_inline void slot_leave(struct task_struct *t, u32 ended_by)
{
	u64 now = bpf_ktime_get_ns();
	struct lt_slot *s;
	u32 index;

	s = slot_of(t, &index);
	if (!s)
		return;
	settle(s, index);
	if (s->phase == LT_PHASE_BUSY)
		iteration_end(s, index, now, ended_by);
	pulse(index, 0);
	s->phase = LT_PHASE_LEARNING;
	s->generation++;
	send_loop_event(LT_REC_LOOP_GONE, s, index, now, LT_DROP_GONE_RING_FULL);
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *t)
{
	u32 tgid = t->tgid;

	slot_leave(t, (t->exit_code & 0x7f) ? LT_ENDED_KILL : LT_ENDED_EXIT);
	if (t->signal->live.counter == 0 && bpf_map_lookup_elem(&targets, &tgid)) {
		bpf_map_delete_elem(&targets, &tgid);
		send_process(t, LT_PROC_EXIT, 0, t->comm);
	}
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *t, int old_pid, struct linux_binprm *bprm)
{
	u32 tgid = t->tgid;

	slot_leave(t, LT_ENDED_EXEC);
	if (t->bpf_storage)
		bpf_task_storage_delete(&slot_refs, t);
	/* Of a target, the tables may be there before its first loop. */
	if (report_processes || bpf_map_lookup_elem(&targets, &tgid))
		send_process(t, LT_PROC_EXEC, 0, t->comm);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	u32 from = parent->tgid, to = child->tgid, yes = 1;

	if (from == to || !follow_forks || !bpf_map_lookup_elem(&targets, &from))
		return 0;
	bpf_map_update_elem(&targets, &to, &yes, BPF_ANY);
	send_process(child, LT_PROC_FORK, from, child->comm);
	return 0;
}

SEC("tp_btf/task_rename")
int BPF_PROG(on_rename, struct task_struct *t, const char *comm)
{
	struct lt_slot *s;
	u32 index;

	s = slot_of(t, &index);
	if (s)
		bpf_probe_read_kernel(s->comm, sizeof(s->comm), comm);
	if (report_renames)
		send_process(t, LT_PROC_RENAME, 0, comm);
	return 0;
}

#define PF_EXITING 0x4

/* Off CPU, with nothing to do. */
static __always_inline void asleep(struct task_struct *t, struct lt_slot *s, u64 now)
{
	s->poll_ns = now;
	s->off_ns = now;
	s->off_run_delay = t->sched_info.run_delay;
	s->phase = LT_PHASE_IDLE;
	/* It has woken up meanwhile: this iteration's begin is not known. */
	if (*(volatile u32 *)&s->running)
		s->phase = LT_PHASE_LEARNING;
}

/* The thread sleeps in a poll now: what a hook would have noted when it went to sleep. */
static __always_inline void found_asleep(struct task_struct *t, struct lt_slot *s, u32 kind)
{
	u64 now = bpf_ktime_get_ns();
	struct lt_poll_call call = {};

	poll_call_of(user_regs(t), kind, &call);
	if (lt_identify(s, &call, now) != LT_POLL_NESTED)
		asleep(t, s, now);
}

static __always_inline void found_again(struct task_struct *t, struct lt_slot *s, u32 kind)
{
	if (kind)
		found_asleep(t, s, kind);
	else if (t->__state && lt_parked(s, (s32)user_regs(t)->orig_ax, user_regs(t)->sp))
		asleep(t, s, bpf_ktime_get_ns());
}

/* The thread waits in a futex. User space knows it for a worker that polls when it gets the turn. */
static __always_inline void found_parked(struct task_struct *t)
{
	u32 tid = t->pid, index;
	u64 now = bpf_ktime_get_ns();
	struct lt_poll_call call = {};
	struct lt_parked *known;
	struct lt_slot *s;

	known = bpf_map_lookup_elem(&parked, &tid);
	if (!known || !t->__state || user_regs(t)->sp != known->sp)
		return;
	s = slot_take(t, &index);
	if (!s)
		return;
	call.kind = LT_POLL_EPOLL;
	call.fd = known->fd;
	call.sp = known->sp;
	lt_candidate_set(&s->loop, &call, now);
	s->confirmed = 1;
	s->user_flags |= LT_SLOT_SHARED_POLLER;
	asleep(t, s, now);
}

/*
 * Run after attaching: threads that sleep in a poll now, or parked. Without it the first iteration of a loop
 * that was idle at that moment would go unseen, and the first stall after attaching with it. Where the hooks
 * were detached for a while, threads have slots already. Those that are alive and run the same program are
 * marked with the census; user space gives up the rest.
 */
SEC("iter/task")
int find_sleepers(struct bpf_iter__task *ctx)
{
	struct task_struct *t = ctx->task;
	struct lt_slot *s;
	u32 index, kind;

	if (!t || !t->mm)
		return 0;
	kind = t->__state ? lt_poll_kind((s32)user_regs(t)->orig_ax, user_regs(t)->dx, user_regs(t)->r10) : 0;
	s = slot_of(t, &index);
	if (s && s->census != census) {
		if ((t->flags & PF_EXITING) || t->self_exec_id != s->exec_id) {
			bpf_task_storage_delete(&slot_refs, t);
			s = 0;
		} else {
			s->census = census;
			if (s->phase == LT_PHASE_LEARNING)
				found_again(t, s, kind);
			return 0;
		}
	}
	if (s || (t->flags & PF_EXITING))
		return 0;
	if (!kind) {
		found_parked(t);
		return 0;
	}
	s = slot_take(t, &index);
	if (s)
		found_asleep(t, s, kind);
	return 0;
}

/* The sleeping threads of the process that it is attached for: user space compares their stacks. */
SEC("iter/task")
int find_waiting(struct bpf_iter__task *ctx)
{
	struct task_struct *t = ctx->task;
	struct lt_waiting w = {};
	struct pt_regs *regs;

	if (!t || !t->mm || !t->__state)
		return 0;
	regs = user_regs(t);
	w.nr = (s32)regs->orig_ax;
	if (w.nr != LT_NR_futex && lt_poll_kind(w.nr, 0, 0) != LT_POLL_EPOLL)
		return 0;
	w.tid = t->pid;
	w.arg0 = regs->di;
	w.ip = regs->ip;
	w.sp = regs->sp;
	w.bp = regs->bp;
	bpf_probe_read_kernel(w.comm, sizeof(w.comm), t->comm);
	bpf_seq_write(ctx->meta->seq, &w, sizeof(w));
	return 0;
}

SEC("tp_btf/cgroup_attach_task")
int BPF_PROG(on_cgroup, void *cgroup, const char *path, struct task_struct *t)
{
	send_process(t, LT_PROC_EXEC, 0, t->comm);
	return 0;
}

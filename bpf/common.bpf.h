/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* For the .bpf.c files only: the maps and knobs that they share, and the functions that cross files. */
#ifndef LOOPTRACE_COMMON_BPF_H
#define LOOPTRACE_COMMON_BPF_H

#include "kernel.bpf.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "looptrace.h"
#include "arch.h"
#include "ledger.h"
#include "loop_identity.h"
#include "unwind_rows.h"

#define LT_MAX_SLOTS_DEFAULT 1024

/* knobs: set before load */
extern const volatile __u32 own_tgid;	      /* looptrace itself, never traced */
extern const volatile __u32 every_process;    /* no target was named */
extern const volatile __u32 follow_forks;     /* children of a target are targets */
extern const volatile __u32 report_processes; /* user space wants exec and fork events */
extern const volatile __u32 report_renames;
extern const volatile __u32 trust_hookless; /* --hook never: apparent iterations are believed */
extern const volatile __u32 take_stacks;

/* runtime: written by user space while tracing */
extern volatile __u64 threshold_ns;
extern volatile __u64 suspect_ns;      /* age at which a running iteration becomes suspect */
extern volatile __u64 capture_cost_ns; /* of budget, per capture in a young iteration; LT_NO_CAPTURES */
extern volatile __u64 sample_gap_ns;   /* on-CPU time between two samples of an iteration, at least */
extern volatile __u64 census;	       /* counts the times that threads are counted: see find_sleepers */
extern volatile __u64 hook_since;      /* when every poll's entry came to be seen; 0 = they are not */
extern volatile __u32 held;	       /* the polls' tracepoints see them, not the probe */
/* By enum lt_drop. Not a map: a bpf(2) call on a map switches off every perf-attached program of its CPU, our
 * poll hooks among them, and that for as long as the caller is preempted. */
extern __u64 drops[LT_NR_DROPS];
extern volatile __u64 probe; /* counts probes: a loop reports its first poll in each */
extern volatile __u64
    closing; /* the trace is over: programs go one by one, and what the rest sees is no account */

struct slot_ref {
	u32 index;
};

struct slots_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LT_MAX_SLOTS_DEFAULT);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32);
	__type(value, struct lt_slot);
};
struct stats_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LT_MAX_SLOTS_DEFAULT);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32);
	__type(value, struct lt_stats);
};
struct pulses_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LT_MAX_SLOTS_DEFAULT);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, u32);
	__type(value, u64);
};
struct slot_refs_map {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct slot_ref);
};
struct free_slots_map {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, LT_MAX_SLOTS_DEFAULT);
	__type(value, u32);
};
struct targets_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u32);
	__type(value, u32);
};
struct parked_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, LT_MAX_PARKED);
	__type(key, u32);
	__type(value, struct lt_parked);
};
struct processes_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u32);
	__type(value, struct lt_process);
};
struct modules_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 32768);
	__type(key, u32);
	__type(value, struct lt_module);
};
struct row_table {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_INNER_MAP);
	__uint(key_size, sizeof(u32)); /* clang emits no full type for an inner map's __type */
	__uint(value_size, sizeof(struct lt_chunk));
};
struct row_tables_map {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 4096);
	__type(key, u32);
	__array(values, struct row_table);
};
struct canaries_map {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
};
struct ring_map {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
};

extern struct slots_map slots SEC(".maps");	    /* by slot index */
extern struct stats_map stats SEC(".maps");	    /* by slot index */
extern struct pulses_map pulses SEC(".maps");	    /* by slot index: start of the open iteration, 0 = none */
extern struct slot_refs_map slot_refs SEC(".maps"); /* a thread's slot */
extern struct free_slots_map free_slots SEC(".maps"); /* indices, filled by user space */
extern struct targets_map targets SEC(".maps");	      /* by tgid: traced processes */
extern struct parked_map parked SEC(".maps");	      /* by tid: what find_sleepers takes for loops, too */
extern struct processes_map processes SEC(".maps");   /* by tgid: what captures need */
extern struct modules_map modules SEC(".maps");	      /* ranges of it belong to processes */
extern struct row_tables_map row_tables SEC(".maps"); /* by lt_row_table.file */
extern struct canaries_map canaries SEC(".maps");     /* see canary() */
extern struct ring_map ring SEC(".maps");

static __always_inline void count_drop(u32 why)
{
	if (why < LT_NR_DROPS)
		__sync_fetch_and_add(&drops[why], 1);
}

/*
 * Records are read at user space's leisure; a wake-up costs the loop 6 to 11 us. One is sent as the ring
 * passes a quarter, not for each record above it.
 */
static __always_inline u64 wake_flag(void)
{
	u64 used = bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA),
	    mark = bpf_ringbuf_query(&ring, BPF_RB_RING_SIZE) / 4;

	return used >= mark && used < mark + 65536 ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

static __always_inline void fill_header(struct lt_hdr *h, u32 kind, u32 size, u64 now, u32 index, u32 tgid,
					u32 tid)
{
	h->ts_ns = now;
	h->kind = kind;
	h->size = size;
	h->slot = index;
	h->tgid = tgid;
	h->tid = tid;
	h->pad = 0;
}

/* A header alone, with a wake-up. One that finds no room is no loss: user space looks at its next tick. */
static __always_inline void send_bare(u32 kind, struct lt_slot *s, u32 index, u64 now)
{
	struct lt_hdr *h = bpf_ringbuf_reserve(&ring, sizeof(*h), 0);

	if (!h)
		return;
	fill_header(h, kind, sizeof(*h), now, index, s->tgid, s->tid);
	bpf_ringbuf_submit(h, BPF_RB_FORCE_WAKEUP);
}

/* A thread's slot, its index in *index. Threads without any BPF storage leave at the first test. */
static __always_inline struct lt_slot *slot_of(struct task_struct *t, u32 *index)
{
	struct slot_ref *ref;

	if (!t->bpf_storage)
		return 0;
	ref = bpf_task_storage_get(&slot_refs, t, 0, 0);
	if (!ref)
		return 0;
	*index = ref->index;
	return bpf_map_lookup_elem(&slots, &ref->index);
}

static __always_inline void pulse(u32 index, u64 start_ns)
{
	u64 *p = bpf_map_lookup_elem(&pulses, &index);

	if (p)
		*p = start_ns;
}

static __always_inline struct pt_regs *user_regs(struct task_struct *t)
{
	return (struct pt_regs *)bpf_task_pt_regs(t);
}

static __always_inline void poll_call_of(struct pt_regs *regs, u32 kind, struct lt_poll_call *call)
{
	call->ip = regs->ip;
	call->sp = regs->sp;
	call->kind = kind;
	call->nr = regs->orig_ax;
	call->fds = 0;
	call->fd = -1;
	call->nfds = 0;
	call->code = 0;
	call->depth = 0;
	if (kind == LT_POLL_EPOLL || kind == LT_POLL_IO_URING) {
		call->fd = regs->di;
	} else if (kind == LT_POLL_POLL) {
		call->fds = regs->di;
		call->nfds = regs->si;
	} else {
		call->fds = regs->si;
		call->nfds = regs->di;
	}
}

/* loops.bpf.c: life of slots */
struct lt_slot *slot_take(struct task_struct *t, u32 *index);

/* The next five are global functions of scalars: the verifier checks each once, not at every call. */

/* loops.bpf.c: an iteration at or over the threshold has ended: counts it, and reports it if it was a stall
 */
int stall_end(u32 index, u64 now, u64 duration, u32 ended_by);
/* sched.bpf.c: makes up for a missed switch-in of the current thread; books its last off-CPU segment */
int heal_current(u32 index);
int settle_current(u32 index);
/* target.bpf.c: what descriptor `off_fd` of the slot's thread is, into in_target. files: its files_struct, a
 * plain number, since the verifier lets no typed pointer into a global function */
int resolve_target(u32 index, u64 files);

/* call_site.bpf.c: where the current thread's interpreter is, into site_code and site_depth */
int find_site(u32 index);

static __always_inline void settle(struct lt_slot *s, u32 index)
{
	if (!s->running && s->phase != LT_PHASE_LEARNING)
		heal_current(index);
	if (s->unsettled)
		settle_current(index);
}

/* Since when each poll of this loop is seen. */
static __always_inline u64 seen_since(const struct lt_slot *s) { return held && s->blind ? 0 : hook_since; }

/*
 * Closes the open iteration. Its pulse is left to the caller, who may begin the next one. Inline, as all that
 * a healthy iteration needs: where the CPU has to be kept from speculating past returns, each call costs 20
 * ns.
 */
static __always_inline void iteration_end(struct lt_slot *s, u32 index, u64 now, u32 ended_by)
{
	struct lt_stats *st = bpf_map_lookup_elem(&stats, &index);
	u64 duration = lt_end(s, now, seen_since(s));

	if (!st || !s->confirmed || closing)
		return;
	st->busy_ns += duration;
	if (s->it.certain_ns == duration && ended_by == LT_ENDED_POLL) {
		u32 bucket = lt_hist_bucket(duration);

		st->iterations++;
		if (bucket < LT_HIST_BUCKETS)
			st->iteration_hist[bucket]++;
		st->iteration_sum_ns += duration;
		if (duration > st->iteration_max_ns)
			st->iteration_max_ns = duration;
	}
	if (duration >= threshold_ns)
		stall_end(index, now, duration, ended_by);
}

/* The poll that the current thread calls. Where in a program it stands matters of poll() and select() only.
 */
static __always_inline void current_poll_call(struct lt_slot *s, u32 index, struct pt_regs *regs, u32 kind,
					      struct lt_poll_call *call)
{
	poll_call_of(regs, kind, call);
	if (!s->py_states[0] || (kind != LT_POLL_POLL && kind != LT_POLL_SELECT))
		return;
	find_site(index);
	call->code = s->site_code;
	call->depth = s->site_depth;
}

/* capture.bpf.c: takes the stacks of the current thread. Returns the capture's id within the slot, 0 = none.
 */
struct capture_request {
	u64 now;
	u64 weight_ns; /* samples: on-CPU time that this one stands for */
	u32 index;     /* of the slot */
	u32 reason;    /* enum lt_capture_reason */
	u32 lane;      /* 0 scheduler, 1 interrupt: which scratch */
	u32 pad;
};
u64 capture(void *ctx, struct lt_slot *s, const struct capture_request *request);

#endif /* LOOPTRACE_COMMON_BPF_H */

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause */
/*
 * The account of one iteration. Pure: given an event and the slot, the new slot. Compiled into BPF and
 * natively in tests. Every nanosecond between lt_begin and lt_end goes to exactly one part, since each
 * event books the time since the previous one: part_ns[] sums to end - start by construction.
 *
 * Certainty. Without a poll hook only polls that sleep are seen (in sched_switch), so what looks like one
 * iteration may be several whose polls returned at once. Time off CPU cannot hide a poll, nor can time
 * during which the hook was attached. `stretch_ns` is where the present unbroken stretch of such time
 * began, `certain_ns` the longest stretch so far.
 */
#ifndef LOOPTRACE_LEDGER_H
#define LOOPTRACE_LEDGER_H

#include "arch.h"
#include "looptrace.h"

#define LT_INLINE static inline __attribute__((always_inline))

/* An iteration begins at `now`, on CPU. began: enum lt_began. */
LT_INLINE void lt_begin(struct lt_slot *s, __u64 now, __u32 began)
{
	struct lt_iteration *it = &s->it;
	int i;

	s->phase = LT_PHASE_BUSY;
	s->on_ns = now;
	s->off_reason = LT_OFF_NONE;
	it->seq++;
	it->start_ns = now;
	it->stretch_ns = now;
	it->certain_ns = it->edge_ns = it->certain_edge_ns = 0;
	it->part_ns[LT_PART_ON_CPU] = 0;
	it->began = began;
	it->in_poll = began == LT_BEGAN_ENTERED;
	s->sample_ns = 0;
	if (!it->segments)
		return; /* a thread that was never off its CPU has nothing of what follows: most iterations of
			   a busy loop */
	it->segments = 0;
	it->part_ns[LT_PART_RUNQUEUE] = it->part_ns[LT_PART_BLOCKED] = 0;
	it->throttled_ns = it->stopped_ns = 0;
	it->longest_runqueue_ns = 0;
	it->nwaits = 0;
	it->more.count = 0;
	for (i = 0; i < LT_MAX_TOP; i++)
		it->top[i].ns = 0;
}

/* The hook was there when the iteration began: each poll since then was seen. */
LT_INLINE int lt_saw_begin(const struct lt_iteration *it, __u64 hook_since)
{
	return hook_since && hook_since <= it->start_ns;
}

/* Keeps the stretch that reaches up to `now`, if it is the longest. */
LT_INLINE void lt_keep_stretch(struct lt_iteration *it, __u64 now)
{
	if (now > it->stretch_ns && now - it->stretch_ns > it->certain_ns) {
		it->certain_ns = now - it->stretch_ns;
		it->certain_edge_ns = it->edge_ns;
	}
}

/* Nothing is certain of the open iteration before `now`. */
LT_INLINE void lt_doubt(struct lt_iteration *it, __u64 now)
{
	it->stretch_ns = now;
	it->certain_ns = it->edge_ns = it->certain_edge_ns = 0;
}

/* Books the running segment that ends at `now`. hook_since: when the poll hook was attached, 0 = it is not.
 */
LT_INLINE void lt_book_running(struct lt_slot *s, __u64 now, __u64 hook_since)
{
	struct lt_iteration *it = &s->it;

	it->part_ns[LT_PART_ON_CPU] += now - s->on_ns;
	if (!hook_since || hook_since > s->on_ns) {
		/* Ran unobserved: the stretch up to this segment is all that is certain of the past. */
		__u64 from = hook_since && hook_since < now ? hook_since : now;

		lt_keep_stretch(it, s->on_ns);
		it->edge_ns = from - s->on_ns;
		it->stretch_ns = from;
	}
	lt_keep_stretch(it, now);
	s->on_ns = now;
}

/* The thread leaves the CPU at `now`. */
LT_INLINE void lt_switch_out(struct lt_slot *s, __u64 now, __u64 hook_since, __u32 reason)
{
	lt_book_running(s, now, hook_since);
	s->off_ns = now;
	s->off_reason = reason;
	s->it.segments++;
}

/* What one off-CPU segment was made of. */
struct lt_off_segment {
	__u64 blocked_ns, runqueue_ns;
};

/* Books the off-CPU segment that ended at `now`, the last `queued` ns of which it was runnable. */
LT_INLINE struct lt_off_segment lt_switch_in(struct lt_slot *s, __u64 now, __u64 queued)
{
	struct lt_iteration *it = &s->it;
	struct lt_off_segment seg = {0, 0};
	__u64 off = now - s->off_ns;

	if (s->off_reason == LT_OFF_PREEMPTED || queued > off)
		queued = off;
	seg.runqueue_ns = queued;
	seg.blocked_ns = off - queued;
	it->part_ns[LT_PART_RUNQUEUE] += seg.runqueue_ns;
	it->part_ns[LT_PART_BLOCKED] += seg.blocked_ns;
	if (s->off_reason == LT_OFF_STOPPED)
		it->stopped_ns += seg.blocked_ns;
	it->segments++;
	s->off_reason = LT_OFF_NONE;
	s->on_ns = now;
	return seg;
}

/* How far the two clocks that a missed switch-in is told from may differ from one moment to the next. */
#define LT_CLOCK_JITTER_NS 100000

/*
 * When a thread that is on CPU at `now` came there, which we were not told. `arrived`: the scheduler's own
 * stamp, which is `skew` behind our clock, 0 = not known. Right after its arrival the stamp may seem to lie
 * ahead. off_ns, as if it had never been away, where the stamp makes no sense.
 */
LT_INLINE __u64 lt_missed_arrival(__u64 off_ns, __u64 now, __u64 arrived, __u64 skew)
{
	__u64 in = arrived + skew;

	if (!skew || in < off_ns || in > now + LT_CLOCK_JITTER_NS)
		return off_ns;
	return in < now ? in : now;
}

/* The thread was preempted inside our own hook for the last `ns` and less: the open iteration's run queue. */
LT_INLINE void lt_book_preempted(struct lt_slot *s, __u64 ns)
{
	if (s->phase != LT_PHASE_BUSY || s->off_reason != LT_OFF_NONE)
		return;
	s->it.part_ns[LT_PART_RUNQUEUE] += ns;
	s->it.segments += 2;
	s->on_ns += ns;
}

/* The iteration ends at `now`, on CPU or off it. Returns its duration. */
LT_INLINE __u64 lt_end(struct lt_slot *s, __u64 now, __u64 hook_since)
{
	if (s->off_reason == LT_OFF_NONE)
		lt_book_running(s, now, hook_since);
	else
		lt_switch_in(s, now, 0);
	s->phase = LT_PHASE_IDLE;
	return now - s->it.start_ns;
}

enum lt_stall_verdict { LT_NOT_A_STALL = 0, LT_IS_STALL = 1, LT_UNCONFIRMED = 2 };

/*
 * An apparent iteration of `duration`: one stall, or several short iterations?
 * trust: every poll was seen, or the user asked for hookless judgement.
 * After a sleep the apparent start is nearly always the true one, so half of the threshold in certainty is
 * enough to tell a stall from a loop that polled on as soon as the hook could see it. An iteration that
 * began at a probe of a loop that never sleeps may have begun anywhere in the unobserved running time before
 * certainty begins: it is taken to have begun half-way, but by no more than a tenth of the threshold (a probe
 * that came late proves little). What is not certain of the duration goes into the record.
 */
LT_INLINE __u32 lt_judge(const struct lt_iteration *it, __u64 duration, __u64 threshold, int trust)
{
	__u64 certain = it->certain_ns;
	__u64 before = it->certain_edge_ns / 2 < threshold / 10 ? it->certain_edge_ns / 2 : threshold / 10;

	if (duration < threshold)
		return LT_NOT_A_STALL;
	if (trust || certain >= threshold)
		return LT_IS_STALL;
	if (it->began != LT_BEGAN_ENTERED)
		return certain >= threshold / 2 ? LT_IS_STALL : LT_UNCONFIRMED;
	return certain + before >= threshold ? LT_IS_STALL : LT_UNCONFIRMED;
}

/*
 * Is an iteration that runs now worth a stack? Of a saturated loop many short iterations look like a long one
 * until a hook shows its polls: once that is there, it is given the time that any loop has before it is
 * suspect. Else there would be hundreds of stacks a second, none of a stall.
 */
LT_INLINE int lt_is_suspect(const struct lt_slot *s, __u64 now, __u64 suspect_ns, __u64 hook_since)
{
	if (s->saturated && (!hook_since || now - hook_since < suspect_ns))
		return 0;
	return now - s->it.start_ns >= suspect_ns;
}

/* Keeps the longest segments with their captures. */
LT_INLINE void lt_keep_segment(struct lt_iteration *it, __u64 capture, __u64 ns)
{
	int i, low = 0;

	for (i = 1; i < LT_MAX_TOP; i++)
		if (it->top[i].ns < it->top[low].ns)
			low = i;
	if (ns > it->top[low & (LT_MAX_TOP - 1)].ns) {
		it->top[low & (LT_MAX_TOP - 1)].capture = capture;
		it->top[low & (LT_MAX_TOP - 1)].ns = ns;
	}
}

/* Adds `ns` of waiting to `w`. Returns 1 if this is now its longest. */
LT_INLINE int lt_wait_add(struct lt_wait *w, __u64 ns)
{
	w->count++;
	w->total_ns += ns;
	if (ns <= w->longest_ns)
		return 0;
	w->longest_ns = ns;
	return 1;
}

LT_INLINE void lt_wait_new(struct lt_wait *w, __s32 nr, __u32 flags, __u64 key)
{
	w->nr = nr;
	w->flags = flags;
	w->key = key;
	w->count = w->total_ns = w->longest_ns = w->capture = w->other_capture = 0;
	w->waker_pid = w->waker_tid = 0;
	w->target.kind = LT_TARGET_NONE;
	w->target.fd = -1;
}

/* The entry for waits in `nr` on `key`; `more` when the table is full. */
LT_INLINE struct lt_wait *lt_wait_find(struct lt_iteration *it, __s32 nr, __u32 flags, __u64 key)
{
	struct lt_wait *w;
	__u32 i;

	for (i = 0; i < LT_MAX_WAITS; i++) {
		w = &it->waits[i];
		if (i >= it->nwaits) {
			lt_wait_new(w, nr, flags, key);
			it->nwaits = i + 1;
			return w;
		}
		if (w->nr == nr && w->flags == flags && w->key == key)
			return w;
	}
	w = &it->more;
	if (!w->count)
		lt_wait_new(w, nr, flags, key);
	return w;
}

/* The kernel's task states, as sched_switch gives them. */
#define LT_TASK_UNINTERRUPTIBLE 2
#define LT_TASK_STOPPED_OR_TRACED (4 | 8)

/* Books the blocked part of the off-CPU segment that the slot describes. */
LT_INLINE void lt_book_wait(struct lt_slot *s, __u64 ns)
{
	struct lt_wait *w;
	__u32 flags = 0;
	int longest;

	if (s->off_prev_state & LT_TASK_STOPPED_OR_TRACED)
		flags |= LT_WAIT_STOPPED;
	else if (s->off_nr < 0)
		flags |= LT_WAIT_FAULT;
	if (s->off_prev_state & LT_TASK_UNINTERRUPTIBLE)
		flags |= LT_WAIT_UNINTERRUPTIBLE;

	lt_keep_segment(&s->it, s->off_capture, ns);
	w = lt_wait_find(&s->it, s->off_nr, flags, lt_wait_key(s->off_nr, s->off_arg0, s->off_fd));
	longest = lt_wait_add(w, ns);
	if (!w->other_capture)
		w->other_capture = s->off_capture;
	/* A wait with a timeout, as CPython's for the GIL, is ended by somebody only the last time. */
	if (s->wake_pid && (longest || !w->waker_pid)) {
		w->waker_pid = s->wake_pid;
		w->waker_tid = s->wake_tid;
		__builtin_memcpy(w->waker_comm, s->wake_comm, sizeof(w->waker_comm));
	}
	if (!longest)
		return;
	w->nr = s->off_nr;
	w->flags = flags;
	w->arg0 = s->off_arg0;
	w->arg1 = s->off_arg1;
	w->capture = s->off_capture;
	w->target = s->in_target;
}

/* By the top six bits of (2^(n+1) - 1) * LT_DE_BRUIJN: n. A table, since branches would be paths for the
 * verifier. */
#define LT_DE_BRUIJN 0x03f79d71b4cb0a89ull
static const __u8 lt_bit_number[64] = {
    0,	47, 1,	56, 48, 27, 2,	60, 57, 49, 41, 37, 28, 16, 3,	61, 54, 58, 35, 52, 50, 42,
    21, 44, 38, 32, 29, 23, 17, 11, 4,	62, 46, 55, 26, 59, 40, 36, 15, 53, 34, 51, 20, 43,
    31, 22, 10, 45, 25, 39, 14, 33, 19, 30, 9,	24, 13, 18, 8,	12, 7,	6,  5,	63,
};

/* Number of the highest bit; 0 of 0. */
LT_INLINE __u32 lt_highest_bit(__u64 v)
{
	v |= v >> 1;
	v |= v >> 2;
	v |= v >> 4;
	v |= v >> 8;
	v |= v >> 16;
	v |= v >> 32;
	return lt_bit_number[(v * LT_DE_BRUIJN) >> 58];
}

/* Bucket of the histograms: bucket 0 below 2^8 ns, the last at and over 2^40 ns, 8 a power of two between. */
LT_INLINE __u32 lt_hist_bucket(__u64 ns)
{
	__u32 bit;

	if (ns < (1ull << LT_HIST_MIN_BITS))
		return 0;
	if (ns >= (1ull << LT_HIST_MAX_BITS))
		return LT_HIST_BUCKETS - 1;
	bit = lt_highest_bit(ns);
	return (bit - LT_HIST_MIN_BITS) * 8 + ((ns >> (bit - LT_HIST_SUB_BITS)) & 7) + 1;
}

/* Token bucket in time: may something that costs `cost` ns of budget be done now? `burst` is the most saved
 * up. */
LT_INLINE int lt_budget(__u64 *paid_until, __u64 now, __u64 cost, __u64 burst)
{
	__u64 from = *paid_until;

	if (now > burst && from < now - burst)
		from = now - burst;
	if (from + cost > now)
		return 0;
	*paid_until = from + cost;
	return 1;
}

#endif /* LOOPTRACE_LEDGER_H */

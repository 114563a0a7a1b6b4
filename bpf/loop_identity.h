/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause */
/*
 * Is this poll the loop's own? Pure: decides on registers only.
 *
 * Blocking clients poll inside the handler (libpq, urllib3, subprocess, Node's execSync with an epoll fd
 * of its own), so "the thread polled" says nothing. What is known of a poll call is its descriptor and
 * its depth on the stack:
 *  - epoll and io_uring: the same descriptor is the same loop, however deep (a re-entered loop still
 *    serves its descriptors). poll and select: the same call site at the same depth. In a Python program both
 *    are the interpreter's: since 3.11 one native frame runs a whole chain of Python functions, so that the
 *    loop's poll() and that of subprocess in its handler come from the same instruction and stack address;
 *    and select.select() has 50 KB of arrays on its stack, so that its depth is greater than that of any
 *    poll() below it.
 *  - A call from further out on the stack means that the frame of the poll known so far has returned:
 *    that one was nested, or is over. The outer call takes its place at once. This is what mends an
 *    attach in the middle of a stall.
 *  - A call from further in, on another descriptor, is a wait inside an iteration. Only while nothing
 *    is confirmed, and only if it recurs for long without the outer one, does it take over.
 *    But depth alone says little of epoll against poll: uvloop calls epoll_wait below a buffer of 12 KB and
 * its handlers above it. A poll() or select() takes the place of a confirmed epoll or io_uring loop only if
 * it recurs for long without that one, and a deeper epoll that recurs takes that of an unconfirmed poll(). A
 * loop is confirmed when its poll recurs. A poll on one descriptor, as clients do it, has to recur for a
 * second. Stacks that are switched (fibers) lie far apart: depth says nothing there.
 */
#ifndef LOOPTRACE_LOOP_IDENTITY_H
#define LOOPTRACE_LOOP_IDENTITY_H

#include "looptrace.h"

#define LT_STACK_SPAN (8ull << 20)	  /* larger distances are different stacks */
#define LT_CLIENT_RECURS_NS 1000000000ull /* how long a client-like poll must recur */
#define LT_DISPLACE_NS 2000000000ull	  /* ... and a deeper poll before it displaces an unconfirmed one */
#define LT_PARK_SPAN 4096ull		  /* a parked worker's futex wait lies this near its poll's depth */

enum lt_verdict { LT_POLL_NESTED = 0, LT_POLL_OWN = 1, LT_POLL_TAKEOVER = 2 };

static inline __attribute__((always_inline)) int lt_same_poll(const struct lt_poll_call *a,
							      const struct lt_poll_call *b)
{
	if (a->kind != b->kind)
		return 0;
	if (a->kind == LT_POLL_EPOLL || a->kind == LT_POLL_IO_URING)
		return a->fd == b->fd;
	if (a->ip != b->ip)
		return 0;
	if (a->code && b->code)
		return a->code == b->code && a->depth == b->depth;
	return a->sp == b->sp || (a->fds == b->fds && a->nfds > 1 && b->nfds > 1);
}

/* `c` was called from a frame further out than `than`'s. */
static inline __attribute__((always_inline)) int lt_further_out(const struct lt_poll_call *c,
								const struct lt_poll_call *than)
{
	if (c->depth && than->depth)
		return c->depth < than->depth;
	return c->sp > than->sp && c->sp - than->sp < LT_STACK_SPAN;
}

/* One descriptor, or an unknown number: what a synchronous client does. */
static inline __attribute__((always_inline)) int lt_client_like(const struct lt_poll_call *c)
{
	return c->kind == LT_POLL_SELECT || (c->kind == LT_POLL_POLL && c->nfds <= 1);
}

/* A set that the kernel keeps: what event loops have, and clients seldom. */
static inline __attribute__((always_inline)) int lt_keeps_set(const struct lt_poll_call *c)
{
	return c->kind == LT_POLL_EPOLL || c->kind == LT_POLL_IO_URING;
}

static inline __attribute__((always_inline)) int lt_recurs(const struct lt_candidate *c, __u64 now)
{
	if (lt_client_like(&c->call))
		return c->seen >= 3 && now - c->first_ns >= LT_CLIENT_RECURS_NS;
	return c->seen >= 2;
}

static inline __attribute__((always_inline)) void lt_candidate_set(struct lt_candidate *c,
								   const struct lt_poll_call *call, __u64 now)
{
	c->call = *call;
	c->first_ns = c->last_ns = now;
	c->seen = 1;
	c->pad = 0;
}

static inline __attribute__((always_inline)) __u32 lt_identify(struct lt_slot *s,
							       const struct lt_poll_call *call, __u64 now)
{
	struct lt_candidate *loop = &s->loop;
	struct lt_candidate *rival;
	int further_out, weaker;
	__u64 displace;
	int i;

	if (s->user_flags & LT_SLOT_RELEARN) {
		s->user_flags &= ~(__u64)LT_SLOT_RELEARN;
		loop->seen = 0;
		s->confirmed = 0;
	}
	/* A poll with nothing to poll is a sleep. */
	if ((call->kind == LT_POLL_POLL || call->kind == LT_POLL_SELECT) && call->nfds == 0)
		return LT_POLL_NESTED;

	if (loop->seen && lt_same_poll(&loop->call, call)) {
		if (loop->seen < 0xffffffffu)
			loop->seen++;
		loop->last_ns = now;
		if (call->sp > loop->call.sp)
			loop->call.sp = call->sp; /* its outermost depth */
		if (!loop->call.code) {
			loop->call.code = call->code;
			loop->call.depth = call->depth;
		}
		if (!s->confirmed)
			s->confirmed = lt_recurs(loop, now);
		return LT_POLL_OWN;
	}
	further_out = lt_further_out(call, &loop->call);
	weaker = s->confirmed && lt_keeps_set(&loop->call) && !lt_keeps_set(call);
	if (!loop->seen || (further_out && !weaker)) {
		lt_candidate_set(loop, call, now);
		s->confirmed = 0;
		return LT_POLL_TAKEOVER;
	}
	if (s->confirmed && !further_out)
		return LT_POLL_NESTED;
	displace = lt_keeps_set(call) && !lt_keeps_set(&loop->call) ? 0 : LT_DISPLACE_NS;

	for (i = 0; i < LT_MAX_CANDIDATES; i++) {
		rival = &s->rivals[i];
		if (rival->seen && lt_same_poll(&rival->call, call)) {
			rival->seen++;
			rival->last_ns = now;
			if (lt_recurs(rival, now) && rival->first_ns > loop->last_ns &&
			    now - rival->first_ns >= displace) {
				*loop = *rival;
				rival->seen = 0;
				s->confirmed = 1;
				return LT_POLL_TAKEOVER;
			}
			return LT_POLL_NESTED;
		}
	}
	for (i = 0; i < LT_MAX_CANDIDATES; i++) {
		rival = &s->rivals[i];
		if (!rival->seen || rival->first_ns < loop->last_ns || i == LT_MAX_CANDIDATES - 1) {
			lt_candidate_set(rival, call, now);
			break;
		}
	}
	return LT_POLL_NESTED;
}

/*
 * The healthy case without a look at the registers: a confirmed loop polls its epoll set again. Now and then
 * it is looked at all the same, since where the loop polls may be further out than was seen so far.
 */
#define LT_LOOK_EVERY 256
static inline __attribute__((always_inline)) int lt_polls_its_set(struct lt_slot *s, __u32 kind, __s32 fd,
								  __u64 now)
{
	struct lt_candidate *loop = &s->loop;

	if (kind != LT_POLL_EPOLL || loop->call.kind != kind || loop->call.fd != fd || !s->confirmed ||
	    (s->user_flags & LT_SLOT_RELEARN) || !((loop->seen + 1) & (LT_LOOK_EVERY - 1)))
		return 0;
	loop->seen++;
	loop->last_ns = now;
	return 1;
}

/* A worker of a runtime whose threads share one epoll fd (tokio, Go) parks on a futex at about the depth
 * of its poll: that is idleness. Deeper futex waits are locks inside a task. */
static inline __attribute__((always_inline)) int lt_parked(const struct lt_slot *s, __s32 nr, __u64 sp)
{
	return (s->user_flags & LT_SLOT_SHARED_POLLER) && nr == 202 && sp + LT_PARK_SPAN >= s->loop.call.sp;
}

#endif /* LOOPTRACE_LOOP_IDENTITY_H */

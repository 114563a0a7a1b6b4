/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * JavaScript frames: V8 keeps no list of them, they are native frames with a frame pointer and fixed slots
 * below it. Two reads a frame besides those of the stack. Where things lie in objects comes from user space
 * (struct lt_v8_config); types are checked, and names and lines resolved, there too.
 */
#ifndef LOOPTRACE_V8_BPF_H
#define LOOPTRACE_V8_BPF_H

#include "user_window.bpf.h"

/* Slots below the frame pointer: the same in V8 10.2 to 13.6 (v8dbg_off_fp_*). */
#define V8_SLOTS 40 /* the lowest */
#define V8_SLOT_OFFSET 40
#define V8_SLOT_BYTECODES 32
#define V8_SLOT_FUNCTION 16
#define V8_SLOT_CONTEXT 8 /* the context, or as a Smi the type of a frame that runs no JavaScript */

#define HOTSPOT_SLOTS 64

#define V8_IS_OBJECT(word) (((word)&3) == 1)

struct v8_walk {
	struct lt_v8_config config;
	struct lt_v8_frame frames[LT_MAX_V8];
	u32 nframes;
	u32 full; /* there was one more */
};

/* Room for one more frame, or null. */
static __always_inline struct lt_v8_frame *v8_next_frame(struct v8_walk *w)
{
	u64 at = w->nframes;

	if (at >= LT_MAX_V8) {
		w->full = 1;
		return 0;
	}
	asm volatile("" : "+r"(at)); /* the address is of what was compared: Linux 6.1 sees no further */
	return &w->frames[at];
}

/* Keeps the frame if it is one of JavaScript. Slots below its sp are not stored yet: what is there was left
 * by a frame that is gone. `stack` holds what there is of the slots. */
static __always_inline void v8_read_frame(struct v8_walk *w, const struct user_window *stack, u32 user,
					  const struct lt_frame *frame)
{
	u64 fp = frame->bp, function;
	struct lt_v8_frame *f;

	if (frame->sp > fp - 16 || !window_holds(stack, fp - V8_SLOTS, V8_SLOTS))
		return;
	function = window_word(stack, fp - V8_SLOT_FUNCTION);
	if (!V8_IS_OBJECT(window_word(stack, fp - V8_SLOT_CONTEXT)) || !V8_IS_OBJECT(function))
		return;
	f = v8_next_frame(w);
	if (!f || bpf_probe_read_user(&f->shared, 8, (void *)(function - 1 + w->config.function_shared)) ||
	    !V8_IS_OBJECT(f->shared) ||
	    bpf_probe_read_user(&f->scope, 8, (void *)(f->shared - 1 + w->config.shared_scope)))
		return;
	f->user = user;
	f->pad = 0;
	f->bytecodes = frame->sp <= fp - V8_SLOTS ? window_word(stack, fp - V8_SLOT_BYTECODES) : 0;
	f->offset = window_word(stack, fp - V8_SLOT_OFFSET);
	w->nframes++;
}

/* HotSpot's interpreter keeps the Method* at fp-24 and its place in the bytecodes at fp-64, JDK 8's at fp-56.
 */
static __always_inline void hotspot_read_frame(struct v8_walk *w, const struct user_window *stack, u32 user,
					       const struct lt_frame *frame)
{
	u64 fp = frame->bp;
	struct lt_v8_frame *f;

	if (frame->sp > fp - 64 || !window_holds(stack, fp - HOTSPOT_SLOTS, HOTSPOT_SLOTS))
		return;
	f = v8_next_frame(w);
	if (!f)
		return;
	f->shared = window_word(stack, fp - 24);
	f->bytecodes = window_word(stack, fp - 64);
	f->offset = window_word(stack, fp - 56);
	f->user = user;
	f->pad = 0;
	f->scope = 0;
	w->nframes++;
}

#endif /* LOOPTRACE_V8_BPF_H */

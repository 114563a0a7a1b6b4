/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * JavaScript frames: V8 keeps no list of them, they are native frames with a frame pointer and fixed slots
 * below it. Three reads a frame. Where things lie in objects comes from user space (struct lt_v8_config);
 * types are checked, and names and lines resolved, there too.
 */
#ifndef LOOPTRACE_V8_BPF_H
#define LOOPTRACE_V8_BPF_H

/* Slots in words below the frame pointer: the same in V8 10.2 to 13.6 (v8dbg_off_fp_*). */
#define V8_SLOT_OFFSET 0    /* fp-40 */
#define V8_SLOT_BYTECODES 1 /* fp-32 */
#define V8_SLOT_FUNCTION 3  /* fp-16 */
#define V8_SLOT_CONTEXT 4   /* fp-8: the context, or as a Smi the type of a frame that runs no JavaScript */
#define V8_SLOTS 5

#define V8_IS_OBJECT(word) (((word)&3) == 1)

struct v8_walk {
	struct lt_v8_config config;
	u64 slots[V8_SLOTS];
	struct lt_v8_frame frames[LT_MAX_V8];
	u32 nframes;
	u32 pad;
};

/* Keeps the frame if it is one of JavaScript. Slots below its sp are not stored yet: what is there was left
 * by a frame that is gone. */
static __always_inline void v8_read_frame(struct v8_walk *w, u32 user, const struct lt_frame *frame)
{
	u32 at = w->nframes;
	struct lt_v8_frame *f;

	if (at >= LT_MAX_V8 || frame->sp > frame->bp - 16)
		return;
	if (bpf_probe_read_user(w->slots, sizeof(w->slots), (void *)(frame->bp - 8 * V8_SLOTS)))
		return;
	if (!V8_IS_OBJECT(w->slots[V8_SLOT_CONTEXT]) || !V8_IS_OBJECT(w->slots[V8_SLOT_FUNCTION]))
		return;
	f = &w->frames[at];
	if (bpf_probe_read_user(&f->shared, 8,
				(void *)(w->slots[V8_SLOT_FUNCTION] - 1 + w->config.function_shared)) ||
	    !V8_IS_OBJECT(f->shared) ||
	    bpf_probe_read_user(&f->scope, 8, (void *)(f->shared - 1 + w->config.shared_scope)))
		return;
	f->user = user;
	f->pad = 0;
	f->bytecodes = frame->sp <= frame->bp - 8 * V8_SLOTS ? w->slots[V8_SLOT_BYTECODES] : 0;
	f->offset = w->slots[V8_SLOT_OFFSET];
	w->nframes = at + 1;
}

/* HotSpot's interpreter keeps the Method* at fp-24 and its place in the bytecodes at fp-64, JDK 8's at fp-56.
 */
static __always_inline void hotspot_read_frame(struct v8_walk *w, u32 user, const struct lt_frame *frame)
{
	u32 at = w->nframes;
	struct lt_v8_frame *f;

	if (at >= LT_MAX_V8 || frame->sp > frame->bp - 64)
		return;
	f = &w->frames[at];
	if (bpf_probe_read_user(&f->shared, 8, (void *)(frame->bp - 24)) ||
	    bpf_probe_read_user(&f->bytecodes, 16, (void *)(frame->bp - 64)))
		return;
	f->user = user;
	f->pad = 0;
	f->scope = 0;
	w->nframes = at + 1;
}

#endif /* LOOPTRACE_V8_BPF_H */

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * CPython frames, innermost first: two reads of the thread's memory a frame. Where things lie in each
 * version comes from user space (struct lt_py_config); names and lines are resolved there too.
 */
#ifndef LOOPTRACE_PYTHON_BPF_H
#define LOOPTRACE_PYTHON_BPF_H

/* Both cover every member read. A 3.11+ frame ends at 80 bytes and may lie at the very end of its chunk. */
#define PY_FRAME_BYTES 112 /* up to 3.10 */
#define PY_FRAME_BYTES_NEW 80

struct py_walk {
	struct lt_py_config config;
	u64 frame;
	u64 bytes[PY_FRAME_BYTES / 8];
};

static __always_inline u64 py_word(const struct py_walk *w, s32 offset)
{
	u32 at = (u32)offset / 8;

	return at < PY_FRAME_BYTES / 8 ? w->bytes[at] : 0;
}

/* Positions the walk at the thread's innermost frame. 0, or which read failed. */
static __always_inline int py_first_frame(struct py_walk *w, const struct lt_py_config *config, u64 tstate)
{
	u64 at = tstate, type = 0, code = 0, outer;

	w->config = *config;
	w->frame = 0;
	if (config->cframe >= 0 && bpf_probe_read_user(&at, 8, (void *)(tstate + config->cframe)))
		return 1;
	if (bpf_probe_read_user(&w->frame, 8, (void *)(at + config->frame)))
		return 2;
	/* 3.11 and 3.12 link a _PyCFrame before they fill it: then the one behind it is the thread's. */
	if (config->cframe >= 0 && config->code_type && w->frame) {
		if (!bpf_probe_read_user(&code, 8, (void *)(w->frame + config->f_code)) &&
		    !bpf_probe_read_user(&type, 8, (void *)(code + 8)) && type == config->code_type)
			return 0;
		if (bpf_probe_read_user(&outer, 8, (void *)(at + config->frame + 8)) ||
		    bpf_probe_read_user(&w->frame, 8, (void *)(outer + config->frame)))
			return 4;
	}
	return 0;
}

/* Reads the frame and steps to its caller. 0 if memory could not be read. */
static __always_inline int py_read_frame(struct py_walk *w, struct lt_py_frame *f)
{
	const struct lt_py_config *c = &w->config;
	u32 first = 0;

	if (c->minor > 10 ? bpf_probe_read_user(w->bytes, PY_FRAME_BYTES_NEW, (void *)w->frame)
			  : bpf_probe_read_user(w->bytes, PY_FRAME_BYTES, (void *)w->frame))
		return 0;
	f->code = py_word(w, c->f_code) & c->code_mask;
	if (c->minor <= 10) {
		/* f_lasti is an int */
		f->instr = (u32)(py_word(w, c->f_instr) >> ((c->f_instr & 4) * 8));
	} else {
		f->instr = py_word(w, c->f_instr);
	}
	f->owner = c->f_owner >= 0 ? (py_word(w, c->f_owner) >> ((c->f_owner & 7) * 8)) & 0xff : 0;
	if (f->code && !(c->minor > 11 && f->owner >= 3) &&
	    bpf_probe_read_user(&first, 4, (void *)(f->code + c->co_firstlineno)))
		first = 0;
	f->firstlineno = first;
	w->frame = py_word(w, c->f_previous);
	return 1;
}

#endif /* LOOPTRACE_PYTHON_BPF_H */

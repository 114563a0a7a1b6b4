// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Where in a Python program poll() or select() is called: the code object and the number of frames. The
 * native stack does not tell (see loop_identity.h). One read of the thread's memory a frame, of these two
 * calls only.
 */
#include "common.bpf.h"

#define SITE_MAX_DEPTH 128 /* a loop that stands deeper is told by its code object alone */

/* The innermost frame of a thread's state, and what it runs. 0 if it runs nothing: what is left of a state
 * that is gone is told by the type of its frame's code. */
static __always_inline u64 innermost(const struct lt_py_config *py, u64 state, u64 *code)
{
	u64 frame = 0, caller = 0, type = 0;

	if (py->cframe >= 0 && bpf_probe_read_user(&state, 8, (void *)(state + py->cframe)))
		return 0;
	if (bpf_probe_read_user(&frame, 8, (void *)(state + py->frame)) || !frame ||
	    bpf_probe_read_user(code, 8, (void *)(frame + py->f_code)))
		return 0;
	*code &= py->code_mask;
	/* 3.15 has a frame of its own below each stack. */
	if (py->minor >= 15 && (bpf_probe_read_user(&caller, 8, (void *)(frame + py->f_previous)) || !caller))
		return 0;
	if (py->code_type &&
	    (bpf_probe_read_user(&type, 8, (void *)(*code + py->task.ob_type)) || type != py->code_type))
		return 0;
	return frame;
}

int find_site(u32 index)
{
	struct lt_slot *s = bpf_map_lookup_elem(&slots, &index);
	u64 frame = 0, code = 0;
	struct lt_process *p;
	u32 tgid, depth = 0;
	int i;

	if (!s)
		return 0;
	s->site_code = 0;
	s->site_depth = 0;
	tgid = s->tgid;
	p = bpf_map_lookup_elem(&processes, &tgid);
	if (!p || !p->py.minor)
		return 0;
	for (i = 0; i < LT_MAX_PY_STATES && !frame && s->py_states[i]; i++)
		frame = innermost(&p->py, s->py_states[i], &code);
	if (!frame)
		return 0;
	while (frame && depth < SITE_MAX_DEPTH) {
		depth++;
		if (bpf_probe_read_user(&frame, 8, (void *)(frame + p->py.f_previous)))
			return 0;
	}
	s->site_code = code;
	s->site_depth = depth;
	return 0;
}

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Where in a Python program poll() or select() is called: the code object and the number of frames. The
 * native stack does not tell (see loop_identity.h). One read of the thread's memory a frame, of these two
 * calls only.
 */
#include "common.bpf.h"

#define SITE_MAX_DEPTH 128 /* a loop that stands deeper is told by its code object alone */

int find_site(u32 index)
{
	struct lt_slot *s = bpf_map_lookup_elem(&slots, &index);
	u64 at, frame = 0, code = 0;
	struct lt_process *p;
	u32 tgid, depth = 0;

	if (!s)
		return 0;
	s->site_code = 0;
	s->site_depth = 0;
	tgid = s->tgid;
	p = bpf_map_lookup_elem(&processes, &tgid);
	if (!p || !p->py.minor)
		return 0;
	at = s->py_tstate;
	if (p->py.cframe >= 0 && bpf_probe_read_user(&at, 8, (void *)(at + p->py.cframe)))
		return 0;
	if (bpf_probe_read_user(&frame, 8, (void *)(at + p->py.frame)) || !frame ||
	    bpf_probe_read_user(&code, 8, (void *)(frame + p->py.f_code)))
		return 0;
	while (frame && depth < SITE_MAX_DEPTH) {
		depth++;
		if (bpf_probe_read_user(&frame, 8, (void *)(frame + p->py.f_previous)))
			return 0;
	}
	s->site_code = code & p->py.code_mask;
	s->site_depth = depth;
	return 0;
}

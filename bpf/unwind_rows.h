/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause */
/*
 * One step of the row unwinder, pure: given a row and the registers of a frame, where the caller's
 * registers are. Compiled into BPF and natively (userspace/stacks, tests). The caller does the reads,
 * since those differ (bpf_probe_read_user, process_vm_readv, a copy).
 */
#ifndef LOOPTRACE_UNWIND_ROWS_H
#define LOOPTRACE_UNWIND_ROWS_H

#include "looptrace.h"

struct lt_frame {
	__u64 pc, sp, bp;
};

/* What must be read to leave a frame. Addresses of 8-byte words. */
struct lt_step {
	__u32 status;	/* LT_UNWIND_END etc. if the walk ends here; LT_STEP_* otherwise */
	__u32 saved_bp; /* nonzero: the caller's rbp is at bp_at */
	__u64 cfa;	/* valid if status == LT_STEP_CFA; else it is *(cfa_at) + cfa_add */
	__u64 cfa_at;
	__u64 cfa_add;
	__u64 bp_at;
};

#define LT_STEP_CFA 100	   /* cfa is known: return address at cfa - 8 */
#define LT_STEP_DEREF 101  /* read cfa from cfa_at first */
#define LT_STEP_SIGNAL 102 /* rip, rsp, rbp from the ucontext: cfa_at = address of gregs[0] */

/* Offsets in gregs[] of the x86-64 ucontext (asm/sigcontext order r8.. rip), and of gregs in the frame. */
#define LT_SIGNAL_GREGS 40
#define LT_GREG_RBP 10
#define LT_GREG_RSP 15
#define LT_GREG_RIP 16

static inline __attribute__((always_inline)) void lt_unwind_step(struct lt_row row, const struct lt_frame *f,
								 struct lt_step *s)
{
	__s64 cfa = (__s64)row.cfa * 8;

	s->status = LT_STEP_CFA;
	s->saved_bp = 0;
	s->cfa = s->cfa_at = s->cfa_add = s->bp_at = 0;
	switch (row.kind) {
	case LT_ROW_RSP:
		s->cfa = f->sp + cfa;
		break;
	case LT_ROW_RBP:
		s->cfa = f->bp + cfa;
		break;
	case LT_ROW_PLT:
		s->cfa = f->sp + 8 + ((f->pc & 15) >= 11 ? 8 : 0);
		break;
	case LT_ROW_GAP:
		/* No table: code with a frame pointer, as JIT compilers emit it. */
		if (f->bp < f->sp) {
			s->status = LT_UNWIND_NO_MODULE;
			return;
		}
		s->cfa = f->bp + 16;
		s->saved_bp = 1;
		s->bp_at = f->bp;
		return;
	case LT_ROW_DEREF_RBP:
		s->status = LT_STEP_DEREF;
		s->cfa_at = f->bp + cfa;
		s->saved_bp = 1;
		s->bp_at = f->bp;
		return;
	case LT_ROW_DEREF_RSP:
		s->status = LT_STEP_DEREF;
		s->cfa_at = f->sp + cfa;
		s->cfa_add = 8;
		break;
	case LT_ROW_SIGNAL:
		s->status = LT_STEP_SIGNAL;
		s->cfa_at = f->sp + LT_SIGNAL_GREGS;
		return;
	case LT_ROW_END:
		s->status = LT_UNWIND_END;
		return;
	default:
		s->status = LT_UNWIND_UNSUPPORTED;
		return;
	}
	/* bp counts from the CFA; where the CFA is not known yet, the reader adds it (bp_at is then 8*bp). */
	if (row.bp) {
		s->saved_bp = 1;
		s->bp_at = s->cfa + (__s64)row.bp * 8;
	}
}

#endif /* LOOPTRACE_UNWIND_ROWS_H */

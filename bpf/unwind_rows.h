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
	__u32 saved_bp; /* LT_BP_* */
	__u64 cfa;	/* valid if status == LT_STEP_CFA; else it is *(cfa_at) + cfa_add */
	__u64 cfa_at;	/* if status == LT_STEP_SP: where the caller's rsp is, which is not the cfa then */
	__u64 cfa_add;
	__u64 bp_at;
	__u64 ra; /* nonzero: the return address; else it is at cfa - 8 */
};

#define LT_BP_KEPT 0	 /* the caller's rbp is this frame's */
#define LT_BP_AT 1	 /* it is at bp_at */
#define LT_BP_FROM_CFA 2 /* it is at cfa + bp_at */

#define LT_STEP_CFA 100	   /* cfa is known: return address at cfa - 8 */
#define LT_STEP_DEREF 101  /* read cfa from cfa_at first */
#define LT_STEP_SP 103	   /* as LT_STEP_CFA, then read the caller's rsp from cfa_at */
#define LT_STEP_SIGNAL 102 /* rip, rsp, rbp from the ucontext: cfa_at = address of gregs[0] */

/* Offsets in gregs[] of the x86-64 ucontext (asm/sigcontext order r8.. rip), and of gregs in the frame. */
#define LT_SIGNAL_GREGS 40
#define LT_GREG_RBP 10
#define LT_GREG_RSP 15
#define LT_GREG_RIP 16

/* Where register n (DWARF number: rax rdx rcx rbx rsi rdi rbp rsp r8 .. r15) is, as an index in 8-byte words:
 * 4 bits each, n = 0 lowest. In gregs[], and in struct pt_regs (r15 r14 r13 r12 bp bx r11 r10 r9 r8 ax cx dx
 * si di orig_ax, and sp at 19, which no row names). */
#define LT_GREGS_ORDER 0x76543210fa89becdull
#define LT_PT_REGS_ORDER 0x0123678904ed5bcaull
#define LT_REGISTER_INDEX(order, n) (((order) >> (4 * (n))) & 15)

/* Registers that a system call does not keep, as a bit mask of DWARF numbers: rax, rcx, r11. */
#define LT_SYSCALL_CLOBBERS ((1u << 0) | (1u << 2) | (1u << 11))

/*
 * And that a walk no longer knows once it left a frame: rbx, r12 to r15, which the frame may have saved and
 * used. The others no function saves. Where a caller's row names one, the code called must have kept it, or
 * the row would be wrong: OpenSSL's assembler has such private helpers (aesni_gcm_encrypt keeps its frame in
 * rax).
 */
#define LT_CALLEE_SAVED ((1u << 3) | (15u << 12))

/* The register that lt_unwind_step() needs the value of; -1 = none. */
static inline __attribute__((always_inline)) int lt_row_register(struct lt_row row)
{
	return row.kind >= LT_ROW_REG && row.kind < LT_ROW_FAR ? row.kind & 15 : -1;
}

/* `value`: of the register that the row names, 0 if it names none. */
static inline __attribute__((always_inline)) void lt_unwind_step(struct lt_row row, const struct lt_frame *f,
								 __u64 value, struct lt_step *s)
{
	__s64 cfa = (__s64)row.cfa * 8;

	s->status = LT_STEP_CFA;
	s->saved_bp = LT_BP_KEPT;
	s->cfa = s->cfa_at = s->cfa_add = s->bp_at = s->ra = 0;
	switch (row.kind >= LT_ROW_FAR	 ? row.kind & 0xc0
		: row.kind >= LT_ROW_REG ? row.kind & 0xf0
					 : row.kind) {
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
		s->saved_bp = LT_BP_AT;
		s->bp_at = f->bp;
		return;
	case LT_ROW_STACK_SWITCH:
		if (!f->bp) {
			s->status = LT_UNWIND_END;
			return;
		}
		s->cfa = f->bp + 16;
		s->saved_bp = LT_BP_AT;
		s->bp_at = f->bp;
		return;
	case LT_ROW_INTERPRETED:
		/* A compiled caller's arguments were copied and rsp moved: its own rsp was kept. */
		s->status = LT_STEP_SP;
		s->cfa = f->bp + 16;
		s->cfa_at = f->bp - 8;
		s->saved_bp = LT_BP_AT;
		s->bp_at = f->bp;
		return;
	case LT_ROW_DEREF_RBP:
		s->status = LT_STEP_DEREF;
		s->cfa_at = f->bp + cfa;
		s->saved_bp = LT_BP_AT;
		s->bp_at = f->bp;
		return;
	case LT_ROW_DEREF_RSP:
		s->status = LT_STEP_DEREF;
		s->cfa_at = f->sp + cfa;
		s->cfa_add = 8;
		break;
	case LT_ROW_DEREF_RSP_ADD:
	case LT_ROW_DEREF_RBP_ADD:
		s->status = LT_STEP_DEREF;
		s->cfa_at = (row.kind == LT_ROW_DEREF_RSP_ADD ? f->sp : f->bp) + 8 * (row.cfa & 0xff);
		s->cfa_add = 8 * ((row.cfa >> 8) & 0xff);
		break;
	case LT_ROW_FAR:
		s->cfa = f->sp + 8 * ((__u64)(row.kind & 63) << 16 | (__u16)row.cfa);
		break;
	case LT_ROW_REG:
		s->cfa = value + cfa;
		break;
	case LT_ROW_INDEXED:
		s->status = LT_STEP_DEREF;
		s->cfa_at = f->sp + cfa + 8 * value;
		s->cfa_add = 8;
		break;
	case LT_ROW_RA_REG:
		s->cfa = f->sp + cfa;
		s->ra = value;
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
	if (row.bp == LT_ROW_BP_HERE) {
		s->saved_bp = LT_BP_AT;
		s->bp_at = f->bp;
	} else if (row.bp) {
		s->saved_bp = LT_BP_FROM_CFA;
		s->bp_at = (__s64)row.bp * 8;
	}
}

#endif /* LOOPTRACE_UNWIND_ROWS_H */

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Stacks of the current thread: kernel, native by unwind rows, CPython and V8 frames. One capture is one
 * record. */
#include "common.bpf.h"
#include "python.bpf.h"
#include "v8.bpf.h"

static __always_inline const struct lt_chunk *lt_table_chunk(void *table, u32 index)
{
	return bpf_map_lookup_elem(table, &index);
}
#include "row_table.h"

/* of data, without the V8 frames: they are gathered in the walk and put behind all others at its end */
#define LT_DATA_WORDS (LT_MAX_KERNEL + LT_MAX_USER + 3 * LT_MAX_PY)

/* scratch is too large for the BPF stack: one per CPU and lane, since an interrupt may come between. */
struct scratch {
	struct lt_capture rec;
	struct lt_frame frame;
	struct py_walk py;
	struct lt_py_task task;
	struct v8_walk v8;
	struct lt_module module; /* of the last frame: most callers are in the same one */
	struct user_window stack;
	u32 exact; /* look this pc up as it is: the leaf of an interrupt, or a signal's resume point */
	u32 unknown_registers; /* in the present frame, a bit for each DWARF number */
	u64 pt_regs, gregs; /* where the known ones are: in the kernel, or in a ucontext if that is nonzero */
	u64 value;	    /* of the register that the present row names */
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

struct walk {
	u32 lane;
	u32 module_base, nmodules;
};

/* Index of the module in [base, base + n) that holds pc, LT_NO_MODULE if none does. Global, as find_row:
 * verified once. */
#define LT_NO_MODULE 0xffffffffu
u32 find_module(u32 base, u32 n, u64 pc)
{
	u32 lo = 0, hi = n;
	struct lt_module *m;
	int i;

	for (i = 0; i < 10; i++) {
		u32 mid = (lo + hi) / 2, at = base + mid;

		if (lo >= hi)
			break;
		m = bpf_map_lookup_elem(&modules, &at);
		if (!m)
			break;
		if (pc < m->start)
			hi = mid;
		else if (pc >= m->end)
			lo = mid + 1;
		else
			return at;
	}
	return LT_NO_MODULE;
}

/* The row for `pc` in sc->module. */
u64 find_row(u32 lane, u64 pc)
{
	struct scratch *sc = bpf_map_lookup_elem(&scratches, &lane);
	void *table;
	u32 file;

	if (!sc)
		return LT_NO_ROW;
	file = sc->module.table.file;
	table = bpf_map_lookup_elem(&row_tables, &file);
	return table ? lt_find_row(table, &sc->module.table, pc - sc->module.bias) : LT_NO_ROW;
}

/* Has sc->stack hold `size` bytes at `at`, and more if there are. Global, as find_row. */
int read_stack(u32 lane, u64 at, u32 size)
{
	struct scratch *sc = bpf_map_lookup_elem(&scratches, &lane);

	return sc ? window_read_up(&sc->stack, at, size) : -1;
}

/* The word of the stack at `at`, into *value. */
static __always_inline long stack_word(struct scratch *sc, u32 lane, u64 at, u64 *value)
{
	if (!window_holds(&sc->stack, at, 8) && read_stack(lane, at, 8))
		return -1;
	*value = window_word(&sc->stack, at);
	return 0;
}

/* The walk's present frame. Global, as find_row: inlined, it would take the stack of unwind_frame past what
 * Linux 6.1 allows. */
int slots_frame(u32 lane, u32 row_kind)
{
	struct scratch *sc = bpf_map_lookup_elem(&scratches, &lane);
	u32 size = row_kind == LT_ROW_INTERPRETED ? HOTSPOT_SLOTS : V8_SLOTS;
	u64 slots;

	if (!sc)
		return 0;
	slots = sc->frame.bp - size;
	if (!window_holds(&sc->stack, slots, size) && window_read_up(&sc->stack, slots, size))
		return 0;
	if (row_kind == LT_ROW_INTERPRETED)
		hotspot_read_frame(&sc->v8, &sc->stack, sc->rec.head.nuser - 1, &sc->frame);
	else
		v8_read_frame(&sc->v8, &sc->stack, sc->rec.head.nuser - 1, &sc->frame);
	return 0;
}

static __always_inline long read_register(struct scratch *sc, u32 n)
{
	if (sc->unknown_registers & (1u << n))
		return -1;
	if (sc->gregs)
		return bpf_probe_read_user(&sc->value, 8,
					   (void *)(sc->gregs + 8 * LT_REGISTER_INDEX(LT_GREGS_ORDER, n)));
	return bpf_probe_read_kernel(&sc->value, 8,
				     (void *)(sc->pt_regs + 8 * LT_REGISTER_INDEX(LT_PT_REGS_ORDER, n)));
}

static long unwind_frame(u32 i, void *ctx)
{
	struct walk *w = ctx;
	u32 lane = w->lane;
	struct scratch *sc = bpf_map_lookup_elem(&scratches, &lane);
	struct lt_row row = {.kind = LT_ROW_GAP};
	struct lt_step step;
	u64 pc, ra, bp, word;
	u32 at;

	if (!sc)
		return 1;
	at = sc->rec.head.nkernel + sc->rec.head.nuser;
	if (sc->rec.head.nuser >= LT_MAX_USER || at >= LT_DATA_WORDS) {
		sc->rec.head.unwind_status = LT_UNWIND_FULL;
		return 1;
	}
	pc = sc->frame.pc;
	sc->rec.data[at] = pc;
	sc->rec.head.nuser++;
	if (!sc->exact)
		pc--;
	if (pc < sc->module.start || pc >= sc->module.end) {
		u32 found = find_module(w->module_base, w->nmodules, pc);
		struct lt_module *m = bpf_map_lookup_elem(&modules, &found);

		if (m) {
			sc->module = *m;
		} else {
			sc->module.start = sc->module.end = 0;
			sc->module.table.file = 0;
		}
	}
	if (sc->module.table.file) {
		word = find_row(lane, pc);
		if (word == LT_NO_ROW) {
			sc->rec.head.unwind_status = LT_UNWIND_NO_ROW;
			return 1;
		}
		__builtin_memcpy(&row, &word, sizeof(row));
	} else if (sc->rec.head.nuser > 1 && sc->frame.bp < sc->frame.sp) {
		sc->rec.head.unwind_status = LT_UNWIND_NO_MODULE;
		return 1;
	}
	sc->exact = 0;
	sc->value = 0;
	if (lt_row_register(row) >= 0 && read_register(sc, lt_row_register(row))) {
		sc->rec.head.unwind_status = LT_UNWIND_UNSUPPORTED;
		return 1;
	}
	sc->unknown_registers |= LT_CALLEE_SAVED;
	if (row.kind == LT_ROW_INTERPRETED || (row.kind == LT_ROW_GAP && sc->v8.config.function_shared))
		slots_frame(lane, row.kind);
	lt_unwind_step(row, &sc->frame, sc->value, &step);
	if (step.status == LT_STEP_SIGNAL) {
		if (stack_word(sc, lane, step.cfa_at + 8 * LT_GREG_RBP, &sc->frame.bp) ||
		    stack_word(sc, lane, step.cfa_at + 8 * LT_GREG_RSP, &sc->frame.sp) ||
		    stack_word(sc, lane, step.cfa_at + 8 * LT_GREG_RIP, &sc->frame.pc)) {
			sc->rec.head.unwind_status = LT_UNWIND_READ_FAULT;
			return 1;
		}
		sc->exact = 1;
		sc->unknown_registers = 0;
		sc->gregs = step.cfa_at;
		return 0;
	}
	if (step.status == LT_STEP_DEREF) {
		if (stack_word(sc, lane, step.cfa_at, &step.cfa)) {
			sc->rec.head.unwind_status = LT_UNWIND_READ_FAULT;
			return 1;
		}
		step.cfa += step.cfa_add;
	} else if (step.status != LT_STEP_CFA && step.status != LT_STEP_SP) {
		sc->rec.head.unwind_status = step.status;
		return 1;
	}
	if (step.saved_bp == LT_BP_FROM_CFA)
		step.bp_at += step.cfa;
	bp = sc->frame.bp;
	ra = step.ra;
	/* the saved bp lies below: in this order one read gets both */
	if ((step.saved_bp && stack_word(sc, lane, step.bp_at, &bp)) ||
	    (!ra && stack_word(sc, lane, step.cfa - 8, &ra))) {
		sc->rec.head.unwind_status = LT_UNWIND_READ_FAULT;
		return 1;
	}
	if (!ra) {
		sc->rec.head.unwind_status = LT_UNWIND_END;
		return 1;
	}
	/* vfork has no frame: its caller's sp is its own */
	if (row.kind != LT_ROW_STACK_SWITCH &&
	    (step.cfa < sc->frame.sp || (step.cfa == sc->frame.sp && !step.ra))) {
		sc->rec.head.unwind_status = LT_UNWIND_BAD_FRAME;
		return 1;
	}
	sc->frame.pc = ra;
	sc->frame.sp = step.cfa;
	sc->frame.bp = bp;
	if (step.status == LT_STEP_SP) {
		if (stack_word(sc, lane, step.cfa_at, &sc->frame.sp)) {
			sc->rec.head.unwind_status = LT_UNWIND_READ_FAULT;
			return 1;
		}
		if (sc->frame.sp < step.cfa) {
			sc->rec.head.unwind_status = LT_UNWIND_BAD_FRAME;
			return 1;
		}
	}
	return 0;
}

static long python_frame(u32 i, void *ctx)
{
	struct walk *w = ctx;
	u32 lane = w->lane;
	struct scratch *sc = bpf_map_lookup_elem(&scratches, &lane);
	struct lt_py_frame f;
	u32 at;

	if (!sc)
		return 1;
	if (!sc->py.frame || sc->rec.head.npy >= LT_MAX_PY)
		return 1;
	if (!py_read_frame(&sc->py, &f)) {
		sc->rec.head.py_status = LT_PY_FAULT;
		return 1;
	}
	/* 3.15's last frame is the thread's base: no eval loop runs it. */
	if (sc->py.config.minor >= 15 && f.owner >= 3 && !sc->py.frame)
		return 1;
	at = sc->rec.head.nkernel + sc->rec.head.nuser + 3 * sc->rec.head.npy;
	if (at > LT_DATA_WORDS - 3)
		return 1;
	sc->rec.data[at] = f.code;
	at++;
	if (at < LT_DATA_WORDS)
		sc->rec.data[at] = f.instr;
	at++;
	if (at < LT_DATA_WORDS)
		sc->rec.data[at] = ((u64)f.owner << 48) | ((u64)f.names << 32) | f.firstlineno;
	sc->rec.head.npy++;
	return 0;
}

/* For whom the frames of this capture ran: a record of its own, before the capture's. */
static __noinline int send_task(struct scratch *sc)
{
	struct lt_py_task *t = &sc->task;

	if (!sc)
		return 0;
	t->hdr = sc->rec.head.hdr;
	t->hdr.kind = LT_REC_PY_TASK;
	t->hdr.size = sizeof(*t);
	t->generation = sc->rec.head.generation;
	t->id = sc->rec.head.id;
	py_find_task(&sc->py, t);
	if ((t->task || t->handler_type) && bpf_ringbuf_output(&ring, t, sizeof(*t), BPF_RB_NO_WAKEUP))
		count_drop(LT_DROP_CAPTURE_RING_FULL);
	return 0;
}

/* By sc->py.config: the frames that hang from one state. Global, as slots_frame. 0 if they are all there. */
int walk_python(u32 lane, u64 tstate)
{
	struct scratch *sc = bpf_map_lookup_elem(&scratches, &lane);
	struct walk w = {.lane = lane};
	struct lt_capture_head *r;

	if (!sc)
		return 0;
	r = &sc->rec.head;
	r->py_status = py_first_frame(&sc->py, &sc->py.config, tstate);
	bpf_loop(LT_MAX_PY, python_frame, &w, 0);
	if (!r->py_status && sc->py.frame)
		r->py_status = LT_PY_FULL;
	if (!r->py_status && py_has_task(&sc->py))
		send_task(sc);
	return r->py_status;
}

/* Puts the V8 frames behind the first `words` of data. Returns their size. */
static __always_inline u32 append_v8(struct scratch *sc, u32 words)
{
	u32 n = sc->v8.nframes;
	u32 size;

	if (!n || n > LT_MAX_V8 || words > LT_DATA_WORDS)
		return 0;
	size = n * sizeof(struct lt_v8_frame);
	if (bpf_probe_read_kernel(&sc->rec.data[words], size, sc->v8.frames))
		return 0;
	sc->rec.head.nv8 = n;
	return size;
}

__hidden u64 capture(void *ctx, struct lt_slot *s, const struct capture_request *request)
{
	u32 lane = request->lane;
	struct scratch *sc = bpf_map_lookup_elem(&scratches, &lane);
	u32 tgid = s->tgid, size, words;
	struct walk w = {.lane = lane};
	struct lt_process *p;
	struct pt_regs *regs;
	struct lt_capture_head *r;
	u64 id;
	long n;

	if (!sc)
		return 0;
	regs = user_regs(bpf_get_current_task_btf());
	r = &sc->rec.head;
	id = ++s->captures;
	fill_header(&r->hdr, LT_REC_CAPTURE, 0, request->now, request->index, tgid, s->tid);
	r->generation = s->generation;
	r->seq = s->it.seq;
	r->id = id;
	r->reason = request->reason;
	r->off_reason = s->off_reason;
	r->nr = regs->orig_ax;
	r->nuser = r->npy = r->nv8 = r->pad = 0;
	r->py_status = 0;
	r->ip = regs->ip;
	r->sp = regs->sp;
	r->bp = regs->bp;
	r->r9 = regs->r9;
	r->r15 = regs->r15;
	r->weight_ns = request->weight_ns;
	r->unwind_status = LT_UNWIND_OFF;

	n = bpf_get_stack(ctx, sc->rec.data, LT_MAX_KERNEL * 8, 0);
	r->nkernel = n > 0 ? (u32)n / 8 : 0;
	if (r->nkernel > LT_MAX_KERNEL)
		r->nkernel = LT_MAX_KERNEL;

	p = bpf_map_lookup_elem(&processes, &tgid);
	if (p) {
		w.module_base = p->module_base;
		w.nmodules = p->nmodules;
		sc->frame.pc = regs->ip;
		sc->frame.sp = regs->sp;
		sc->frame.bp = regs->bp;
		sc->module.start = sc->module.end = 0;
		sc->module.table.file = 0;
		sc->v8.config = p->v8;
		sc->v8.nframes = sc->v8.full = 0;
		sc->stack.at = sc->stack.size = 0;
		/* Behind a `syscall` instruction pc may be past the function's last row. */
		sc->exact = (s32)regs->orig_ax < 0;
		sc->unknown_registers = sc->exact ? 0 : LT_SYSCALL_CLOBBERS;
		sc->pt_regs = (u64)regs;
		sc->gregs = 0;
		bpf_loop(LT_MAX_USER, unwind_frame, &w, 0);
		if (sc->v8.full)
			r->py_status = LT_PY_FULL;
		if (p->py.minor && s->py_states[0]) {
			sc->py.config = p->py;
			/* A state whose thread has left its interpreter has no frames. */
			if (!walk_python(lane, s->py_states[0]) && s->py_states[1] &&
			    !walk_python(lane, s->py_states[1]) && s->py_states[2])
				walk_python(lane, s->py_states[2]);
		}
	} else {
		sc->rec.data[r->nkernel < LT_DATA_WORDS ? r->nkernel : 0] = regs->ip;
		r->nuser = 1;
	}

	words = r->nkernel + r->nuser + 3 * r->npy;
	if (words > LT_DATA_WORDS)
		words = LT_DATA_WORDS;
	size = words * 8;
	if (p)
		size += append_v8(sc, words);
	size += __builtin_offsetof(struct lt_capture, data);
	r->hdr.size = size;
	if (size > sizeof(sc->rec))
		return 0;
	if (bpf_ringbuf_output(&ring, r, size, wake_flag())) {
		count_drop(LT_DROP_CAPTURE_RING_FULL);
		return 0;
	}
	return id;
}

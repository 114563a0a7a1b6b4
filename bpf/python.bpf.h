/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * CPython frames, innermost first. From 3.11 on those of calls lie one behind the other, and one read gets
 * several; each code object takes another. Where things lie in each version comes from user space (struct
 * lt_py_config); names and lines are resolved there too.
 */
#ifndef LOOPTRACE_PYTHON_BPF_H
#define LOOPTRACE_PYTHON_BPF_H

#include "user_window.bpf.h"

/* Both cover every member read. A 3.11+ frame ends at 80 bytes and may lie at the very end of its chunk. */
#define PY_FRAME_BYTES 112 /* up to 3.10 */
#define PY_FRAME_BYTES_NEW 80
/* Of a code object from its first line on: up to the three words of its names, and within every version's. */
#define PY_CODE_BYTES 96
#define PY_CODE_NAMES 15 /* mask of the index of the first: what verifiers of 6.1 follow */

struct py_walk {
	struct lt_py_config config;
	u64 tstate, frame;
	u64 handle, handler; /* innermost frames of the functions that tell the task; 0 = none met */
	u64 called, ran;     /* the frame before, without shims; what the outermost Runner.run() called */
	u64 code[PY_CODE_NAMES + 3];
	struct user_window window;
};

/* Has the window hold the frame. 0 if memory could not be read. */
static __always_inline int py_open_frame(struct py_walk *w, u64 frame)
{
	if (w->config.minor <= 10) { /* an object of its own, anywhere in the heap */
		w->window.at = frame;
		w->window.size = PY_FRAME_BYTES;
		return !bpf_probe_read_user(w->window.words, PY_FRAME_BYTES, (void *)frame);
	}
	/* Callers lie below what they call. */
	return window_holds(&w->window, frame, PY_FRAME_BYTES_NEW) ||
	       !window_read_down(&w->window, frame, PY_FRAME_BYTES_NEW);
}

/* A member of the frame that the window holds. */
static __always_inline u64 py_word(const struct py_walk *w, u64 frame, s32 offset)
{
	return window_word(&w->window, frame + ((u32)offset & ~7u));
}

/*
 * Positions the walk at the thread's innermost frame. Returns an enum lt_py_status; with LT_PY_FAULT there
 * may be a frame all the same, but not the innermost.
 */
static __always_inline int py_first_frame(struct py_walk *w, const struct lt_py_config *config, u64 tstate)
{
	u64 at = tstate, type = 0, code = 0, outer, inner;
	int away;

	w->config = *config;
	w->tstate = tstate;
	w->frame = w->handle = w->handler = w->called = w->ran = 0;
	w->window.at = w->window.size = 0;
	if (config->cframe >= 0 && bpf_probe_read_user(&at, 8, (void *)(tstate + config->cframe)))
		return LT_PY_FAULT;
	if (bpf_probe_read_user(&inner, 8, (void *)(at + config->frame)))
		return LT_PY_FAULT;
	w->frame = inner;
	if (config->cframe < 0 || !config->code_type || !inner)
		return LT_PY_END;
	/* 3.11 and 3.12 link a _PyCFrame before they fill it: then the one behind it is the thread's. */
	away = !py_open_frame(w, inner);
	if (!away) {
		code = py_word(w, inner, config->f_code);
		away = code && bpf_probe_read_user(&type, 8, (void *)(code + 8));
	}
	if (!away && type == config->code_type)
		return LT_PY_END;
	w->frame = 0;
	if (bpf_probe_read_user(&outer, 8, (void *)(at + config->frame + 8)) ||
	    bpf_probe_read_user(&w->frame, 8, (void *)(outer + config->frame)))
		return LT_PY_FAULT;
	/* What is not there may be rubbish, or frames whose memory is away: those are left out now. */
	return away && inner % 8 == 0 && code % 8 == 0 ? LT_PY_FAULT : LT_PY_END;
}

/* What tells the frame's code object from another that comes to lie where it lay; zeros if it cannot be read.
 */
static __always_inline void py_read_code(struct py_walk *w, struct lt_py_frame *f)
{
	u32 from = (u32)w->config.co_firstlineno & ~7u;
	u32 names = ((u32)w->config.co_filename - from) / 8 & PY_CODE_NAMES;

	if (bpf_probe_read_user(w->code, PY_CODE_BYTES, (void *)(f->code + from)))
		return;
	f->firstlineno = (u32)(w->code[0] >> ((w->config.co_firstlineno & 4) * 8));
	f->names = lt_py_names(w->code[names], w->code[names + 1], w->code[names + 2]);
}

/* Reads the frame and steps to its caller. 0 if memory could not be read. */
static __always_inline int py_read_frame(struct py_walk *w, struct lt_py_frame *f)
{
	const struct lt_py_config *c = &w->config;
	u64 frame = w->frame;

	if (!py_open_frame(w, frame))
		return 0;
	f->code = py_word(w, frame, c->f_code) & c->code_mask;
	if (c->minor <= 10) {
		/* f_lasti is an int */
		f->instr = (u32)(py_word(w, frame, c->f_instr) >> ((c->f_instr & 4) * 8));
	} else {
		f->instr = py_word(w, frame, c->f_instr);
	}
	f->owner = c->f_owner >= 0 ? (py_word(w, frame, c->f_owner) >> ((c->f_owner & 7) * 8)) & 0xff : 0;
	f->firstlineno = f->names = 0;
	if (f->code && !(c->minor > 11 && f->owner >= 3))
		py_read_code(w, f);
	if (f->code && f->code == c->task.handle.code && !w->handle)
		w->handle = w->frame;
	if (f->code && f->code == c->task.handler.code && !w->handler)
		w->handler = w->frame;
	if (f->code && f->code == c->task.runner.code)
		w->ran = w->called;
	if (!(c->minor > 11 && f->owner >= 3))
		w->called = w->frame;
	w->frame = py_word(w, frame, c->f_previous);
	return 1;
}

static __always_inline u64 py_read(u64 address)
{
	u64 word = 0;

	bpf_probe_read_user(&word, 8, (void *)address);
	return word;
}

/* The first argument of a watched function, 0 if it cannot be read. */
static __always_inline u64 py_self(const struct py_walk *w, const struct lt_py_watch *watch, u64 frame)
{
	u64 self = py_read(frame + watch->self) & w->config.code_mask;

	if (self && py_read(self + w->config.task.ob_type) == w->config.task.cell_type)
		self = py_read(self + w->config.task.ob_type + 8);
	return self;
}

/*
 * From 3.14 on the thread's state names the running Task. Before, Handle._run(self) -> self._callback -> its
 * Task. A callback that steps a Task is a bound method of it, of C (from the second step on) or Python, or an
 * object made for the purpose. What is found need not be a Task.
 */
static __always_inline u64 py_running_task(const struct py_walk *w)
{
	const struct lt_py_task_config *c = &w->config.task;
	u64 self, type;

	if (c->running >= 0)
		return py_read(w->tstate + c->running);
	if (!w->handle || c->name < 0)
		return 0;
	self = py_self(w, &c->handle, w->handle);
	if (!self)
		return 0;
	self = py_read(self + c->callback);
	if (!self)
		return 0;
	type = py_read(self + c->ob_type);
	return py_read(self + c->ob_type + (type == c->function_type || type == c->method_type ? 16 : 8));
}

/* Whether py_find_task() may find anything. */
static __always_inline int py_has_task(const struct py_walk *w)
{
	return w->handle || w->handler || w->ran || w->config.task.running >= 0;
}

/* The running Task, its name and coroutine; the handler that Tornado runs. */
static __always_inline void py_find_task(const struct py_walk *w, struct lt_py_task *t)
{
	const struct lt_py_task_config *c = &w->config.task;
	u64 self;

	t->task = t->task_type = t->coro = t->coro_code = t->handler_type = t->name = 0;
	t->name_bytes = t->pad = 0;
	if (w->handler || w->ran) {
		self = w->handler ? py_self(w, &c->handler, w->handler) : py_self(w, &c->runner, w->ran);
		if (self)
			t->handler_type = py_read(self + c->ob_type);
	}
	t->task = py_running_task(w);
	if (!t->task)
		return;
	t->task_type = py_read(t->task + c->ob_type);
	t->coro = py_read(t->task + c->coro);
	t->name = py_read(t->task + c->name);
	if (t->coro)
		t->coro_code = py_read(t->coro + c->coro_code);
	if (!t->name)
		return;
	/* A short one may end its mapping. */
	t->name_bytes = LT_TASK_NAME_LEN;
	if (bpf_probe_read_user(t->name_object, LT_TASK_NAME_LEN, (void *)t->name)) {
		t->name_bytes = LT_TASK_NAME_LEN / 2;
		if (bpf_probe_read_user(t->name_object, LT_TASK_NAME_LEN / 2, (void *)t->name))
			t->name_bytes = 0;
		__builtin_memset(t->name_object + LT_TASK_NAME_LEN / 2, 0, LT_TASK_NAME_LEN / 2);
	}
}

#endif /* LOOPTRACE_PYTHON_BPF_H */

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Loops that run late on a CPU: stacks of what they run, and the word to user space that one is suspect.
 * Two sources of one body: the timer tick that runs anyway on a busy CPU (free, 100 to 1,000 Hz by kernel
 * configuration) and perf's cpu-clock (any rate, its own interrupts).
 */
#include "common.bpf.h"

/* A poll that takes long on its CPU, with thousands of ready descriptors or where the CPU itself is taken
 * away, is not what the program does between two polls. Where its entry was not seen it may be a later one.
 */
static __always_inline int is_still_in_its_poll(struct task_struct *t, struct lt_slot *s)
{
	struct pt_regs *regs = user_regs(t);
	struct lt_poll_call call = {};
	u32 kind;

	if (!s->it.in_poll || s->in_hook || !lt_saw_begin(&s->it, seen_since(s)))
		return 0;
	kind = lt_poll_kind((s32)regs->orig_ax, regs->dx, regs->r10);
	if (!kind)
		return 0;
	poll_call_of(regs, kind, &call);
	return lt_same_poll(&s->loop.call, &call);
}

static __always_inline int sample(void *ctx)
{
	struct task_struct *t = bpf_get_current_task_btf();
	struct lt_slot *s;
	u32 index;
	u64 now, on_cpu;

	s = slot_of(t, &index);
	if (!s || s->phase != LT_PHASE_BUSY || !s->running)
		return 0;
	now = bpf_ktime_get_ns();
	if (is_still_in_its_poll(t, s)) {
		lt_begin(s, now, LT_BEGAN_ENTERED);
		pulse(index, now);
		return 0;
	}
	if (!lt_is_suspect(s, now, suspect_ns, hook_since))
		return 0;
	on_cpu = s->it.part_ns[LT_PART_ON_CPU] + (now - (s->unsettled ? s->in_ns : s->on_ns));
	if (!s->sample_ns)
		send_bare(LT_REC_SUSPECT, s, index, now);
	else if (on_cpu - s->sample_ns < sample_gap_ns)
		return 0;
	if (take_stacks && capture_cost_ns != LT_NO_CAPTURES) {
		struct capture_request request = {.now = now,
						  .weight_ns = on_cpu - s->sample_ns,
						  .index = index,
						  .reason = LT_CAPTURE_SAMPLE,
						  .lane = 1};

		capture(ctx, s, &request);
	}
	s->sample_ns = on_cpu ? on_cpu : 1;
	return 0;
}

SEC("tp_btf/local_timer_entry")
int BPF_PROG(on_tick, int vector) { return sample(ctx); }

SEC("perf_event")
int on_clock(struct bpf_perf_event_data *ctx) { return sample(ctx); }

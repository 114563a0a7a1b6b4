// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Every map and knob; their types and purposes are in common.bpf.h. */
#include "common.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const volatile __u32 own_tgid = 0;
const volatile __u32 every_process = 0;
const volatile __u32 follow_forks = 0;
const volatile __u32 report_processes = 0;
const volatile __u32 report_renames = 0;
const volatile __u32 trust_hookless = 0;
const volatile __u32 take_stacks = 1;

volatile __u64 threshold_ns = 0;
volatile __u64 suspect_ns = 0;
volatile __u64 capture_cost_ns = 0;
volatile __u64 sample_gap_ns = 0;
volatile __u64 census = 0;
volatile __u64 hook_since = 0;
volatile __u32 held = 0;
volatile __u64 probe = 0;
volatile __u64 closing = 0;
__u64 drops[LT_NR_DROPS] = {};

struct slots_map slots SEC(".maps");
struct stats_map stats SEC(".maps");
struct pulses_map pulses SEC(".maps");
struct slot_refs_map slot_refs SEC(".maps");
struct free_slots_map free_slots SEC(".maps");
struct targets_map targets SEC(".maps");
struct parked_map parked SEC(".maps");
struct processes_map processes SEC(".maps");
struct modules_map modules SEC(".maps");
struct row_tables_map row_tables SEC(".maps");
struct canaries_map canaries SEC(".maps");
struct ring_map ring SEC(".maps");

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause */
/*
 * The contract between the BPF programs and user space: records, parts of the ledger, limits, drop
 * reasons. Included by C (BPF target) and by C++. Fixed-width members, 8-byte order, explicit padding,
 * no pointers. Enum values are append-only. No code.
 *
 * Memory shared by mmap: `slots` (one per loop thread: its ledger and its open iteration) and `stats`
 * (one per loop thread: exact counters and histograms). The kernel writes them, user space reads them;
 * the few members that user space writes are marked so. Records in the ring buffer: struct lt_hdr first.
 */
#ifndef LOOPTRACE_H
#define LOOPTRACE_H

#ifdef __cplusplus
#include <linux/types.h>
#endif

#define LT_COMM_LEN 16
#define LT_MAX_CANDIDATES 3  /* polls of one thread that compete for being the loop's */
#define LT_MAX_WAITS 6	     /* distinct waits kept per iteration; the rest is summed in `more` */
#define LT_MAX_TOP 4	     /* longest segments kept per iteration, each with its stack */
#define LT_MAX_KERNEL 48     /* kernel frames per capture */
#define LT_MAX_USER 384	     /* native user frames per capture */
#define LT_MAX_PY 192	     /* interpreter frames per capture */
#define LT_MAX_PY_STATES 3   /* interpreters that one thread runs one inside the other */
#define LT_MAX_V8 160	     /* JavaScript frames per capture */
#define LT_MAX_MODULES 512   /* executable mappings per process */
#define LT_MAX_PARKED 1024   /* threads that find_sleepers is told of at once */
#define LT_PATH_LEN 192	     /* bytes of a file path, its end kept */
#define LT_TASK_NAME_LEN 144 /* bytes of the object that names an asyncio Task, its header included */

/* ------------------------------------------------------------------ loops and polls */

enum lt_poll_kind {
	LT_POLL_NONE = 0,
	LT_POLL_EPOLL = 1,    /* key: epoll fd */
	LT_POLL_POLL = 2,     /* key: call site (user ip, sp) */
	LT_POLL_SELECT = 3,   /* key: call site */
	LT_POLL_IO_URING = 4, /* key: ring fd; only with min_complete > 0 */
};

/* One poll call, as its registers tell it. */
struct lt_poll_call {
	__u64 ip, sp; /* user registers at the system call */
	__u64 fds;    /* poll, select: address of the (first) set */
	__s32 fd;     /* epoll, io_uring; -1 otherwise */
	__u32 nfds;   /* poll, select */
	__u32 kind;   /* enum lt_poll_kind */
	__u32 nr;     /* system call number */
	__u64 code;   /* poll, select in a Python program: the code object that called, 0 = not known ... */
	__u32 depth;  /* ... and how many frames deep it was */
	__u32 pad;
};

/* A poll that recurs on one thread. */
struct lt_candidate {
	struct lt_poll_call call; /* as first seen */
	__u64 first_ns, last_ns;
	__u32 seen;
	__u32 pad;
};

enum lt_loop_phase {
	LT_PHASE_LEARNING = 0, /* no poll has proved to be the loop's */
	LT_PHASE_IDLE = 1,     /* in its own poll */
	LT_PHASE_BUSY = 2,     /* inside an iteration */
};

/* ------------------------------------------------------------------ the ledger */

enum lt_part {
	LT_PART_ON_CPU = 0,
	LT_PART_RUNQUEUE = 1,
	LT_PART_BLOCKED = 2,
	LT_NR_PARTS = 3,
};

/* A blocked loop needs no probe: past this it gets none, and its switch-in says so (LT_REC_SUSPECT). */
#define LT_LONG_WAIT_NS 1000000000ull

/* Why a thread is off CPU. */
enum lt_off_reason {
	LT_OFF_NONE = 0,      /* it is on CPU */
	LT_OFF_PREEMPTED = 1, /* still runnable */
	LT_OFF_BLOCKED = 2,   /* voluntary switch */
	LT_OFF_STOPPED = 3,   /* SIGSTOP, ptrace, cgroup freezer */
};

/* An off-CPU segment is booked at the thread's next event: only then does the scheduler tell how much of it
 * was spent in the run queue (sched_info.run_delay is updated after sched_switch's tracepoint). */
enum lt_unsettled {
	LT_SETTLED = 0,
	LT_UNSETTLED_WAIT = 1, /* inside an iteration */
	LT_UNSETTLED_POLL = 2, /* the sleep in its own poll, before the iteration */
};

enum lt_target_kind {
	LT_TARGET_NONE = 0,
	LT_TARGET_FILE = 1,
	LT_TARGET_PIPE = 2,
	LT_TARGET_UNIX = 3,
	LT_TARGET_TCP = 4,
	LT_TARGET_UDP = 5,
	LT_TARGET_SOCKET = 6, /* any other family */
	LT_TARGET_ANON = 7,   /* anon_inode: eventfd, timerfd, epoll, ... named by `name` */
	LT_TARGET_DEVICE = 8,
	LT_TARGET_DIRECTORY = 9,
};

/* What a file descriptor was when the thread waited on it. */
struct lt_target {
	__u32 kind; /* enum lt_target_kind */
	__s32 fd;   /* -1: none */
	__u64 inode;
	__u32 device;
	__u16 family, local_port, peer_port, pad; /* host order */
	__u8 local[16], peer[16];		  /* v4 in the first 4 bytes */
	char name[32]; /* leaf of the path, or the anon inode's name; whole path in an lt_path record */
};

#define LT_WAIT_STOPPED 1 /* flags: SIGSTOP or a tracer */
#define LT_WAIT_FAULT 2	  /* no system call: a page fault */
#define LT_WAIT_RUNQUEUE 4
#define LT_WAIT_UNINTERRUPTIBLE 8

/* All waits of one iteration with the same system call and first argument. */
struct lt_wait {
	__s32 nr;	  /* system call, -1 = none (page fault) */
	__u32 flags;	  /* LT_WAIT_* */
	__u64 arg0, arg1; /* of the longest */
	__u64 count;
	__u64 total_ns;
	__u64 longest_ns;
	__u64 capture;		    /* capture id of the longest; 0 = none */
	__u64 other_capture;	    /* of the first that has one */
	__u64 key;		    /* what makes waits of one system call distinct: fd, futex word, pid */
	__u32 waker_pid, waker_tid; /* who ended the longest; 0 = not seen */
	char waker_comm[LT_COMM_LEN];
	struct lt_target target; /* of the longest */
};

/* One of the longest segments of an iteration. */
struct lt_segment {
	__u64 capture; /* capture id, 0 = no stack taken */
	__u64 ns;
};

enum lt_began {
	LT_BEGAN_SLEPT = 0,   /* the thread woke up in its poll */
	LT_BEGAN_ENTERED = 1, /* a hook saw the poll's entry; it did not sleep */
	LT_BEGAN_STOPPED = 2, /* it was stopped in its poll */
};

/* One iteration's account. parts sum to (now - start) at each event. */
struct lt_iteration {
	__u64 seq;	       /* of this loop, from 1 */
	__u64 start_ns;	       /* CLOCK_MONOTONIC: the poll returned */
	__u64 stretch_ns;      /* since then no poll can have gone unseen (see ledger.h) */
	__u64 certain_ns;      /* the longest such stretch */
	__u64 edge_ns;	       /* unobserved running time right before the present stretch ... */
	__u64 certain_edge_ns; /* ... and before the longest one */
	__u64 part_ns[LT_NR_PARTS];
	__u64 throttled_ns; /* part of run queue */
	__u64 stopped_ns;   /* part of blocked */
	__u64 segments;	    /* switches in and out */
	__u64 longest_runqueue_ns;
	__u32 preempted_by_pid, preempted_by_tid;
	char preempted_by_comm[LT_COMM_LEN];
	__u32 nwaits;  /* used entries of waits */
	__u32 began;   /* enum lt_began */
	__u32 in_poll; /* began at a poll's entry, and nothing shows yet that the poll returned */
	__u32 pad;
	struct lt_segment top[LT_MAX_TOP];
	struct lt_wait waits[LT_MAX_WAITS];
	struct lt_wait more; /* waits beyond the table, merged; target and nr of the longest */
};

#define LT_NO_CAPTURES 0xffffffffffffffffull /* capture_cost_ns: none are taken for now */

/* Everything about one loop thread. */
struct lt_slot {
	/* identity: written once, when the slot is taken */
	__u32 tgid, tid;
	__u64 start_boottime; /* of the process: tells pid reuse */
	char comm[LT_COMM_LEN];
	__u64 generation; /* odd while in use; +1 at take and at free */
	__u64 exec_id;	  /* of the thread: a change tells an exec that no hook saw */
	__u64 census;	  /* the last one that found the thread alive */

	/* which poll */
	__u32 phase;	 /* enum lt_loop_phase */
	__u32 confirmed; /* the poll in `loop` proved to be the loop's own */
	struct lt_candidate loop;
	struct lt_candidate rivals[LT_MAX_CANDIDATES];

	/* where the thread is now */
	__u32 off_reason; /* enum lt_off_reason */
	__s32 off_nr;	  /* system call at switch-out; -1 = none */
	__u64 off_arg0, off_arg1;
	__u64 off_ns; /* switch-out */
	__u64 on_ns;  /* last switch-in or iteration start */
	__u64 off_ip, off_sp, off_bp;
	__s32 off_fd; /* from poll()'s array or select()'s set; -1 = not known */
	__u32 off_prev_state;
	__u64 off_capture;   /* capture id of the present off-CPU segment; 0 = none */
	__u64 off_throttled; /* throttled time of its cgroups at switch-out */
	__u64 off_run_delay; /* the scheduler's run_delay at switch-out */
	__u64 in_ns;	     /* switch-in that ended the segment */
	__u64 clock_skew;    /* CLOCK_MONOTONIC minus the scheduler's clock, as of the last switch-in that was
				seen */
	__u32 unsettled;     /* enum lt_unsettled: the segment [off_ns, in_ns) is not booked yet */
	__u32 running;	     /* it is on a CPU */
	__u32 blind;	     /* the segment on a CPU that ends now: held_enter may not have seen its polls */
	__u32 pad;
	__u64 in_canary;		/* how often the canary had run on its CPU when it came there */
	__u32 in_prev_pid, in_prev_tid; /* who had the CPU before it, for segments of 1 ms and more */
	char in_prev_comm[LT_COMM_LEN];
	struct lt_target
	    in_target; /* what off_fd was, read before the thread could close it; not of the shortest waits */
	__u64 in_throttled;	  /* throttled time during the segment */
	__u32 wake_pid, wake_tid; /* who ended the present wait; 0 = not seen */
	char wake_comm[LT_COMM_LEN];
	__u64 probe_seen; /* the last probe that saw it poll */
	__u64 poll_ns;	  /* when the present or last own poll began */
	__u64 in_hook; /* our hook at a poll's entry runs: where that is preemptible, the scheduler's leaves
			  the slot alone meanwhile ... */
	__u64 hook_left_ns; /* ... and notes when it was preempted in there ... */
	__u64 hook_off_ns;  /* ... and for how long, not booked yet */
	__u64 switches;	    /* of this thread since the slot was taken: a change tells a stale snapshot */
	__u64 captures;	    /* last capture id given out */
	__u64 capture_budget_ns; /* token bucket: time until which captures are paid for */
	__u64 sample_ns;	 /* this iteration's on-CPU time at its last sample; 0 = no sample yet */

	/* written by user space */
	__u64 py_states[LT_MAX_PY_STATES]; /* PyThreadState*, one an interpreter, innermost first; 0 = no more
					    */
	__u64 user_flags;		   /* LT_SLOT_* */

	__u64 site_code; /* where the interpreter was at the last poll() or select(); see call_site.bpf.c */
	__u32 site_depth;
	__u32 saturated; /* written by user space: it always finds something to poll, see lt_is_suspect */

	struct lt_iteration it;
};

#define LT_SLOT_SHARED_POLLER                                                                                \
	1		  /* several threads poll this epoll fd (tokio, Go): a parked futex wait is idle */
#define LT_SLOT_RELEARN 4 /* the loop's epoll fd is gone: forget it */

/* A thread that sleeps in an epoll wait or in a futex. */
struct lt_waiting {
	__u32 tid;
	__s32 nr;
	__u64 arg0; /* epoll descriptor, futex word */
	__u64 ip, sp, bp;
	char comm[LT_COMM_LEN];
};

/* A thread that waits in a futex where, had it the turn, it would poll an epoll descriptor. By its tid. */
struct lt_parked {
	__u64 sp; /* of the wait */
	__s32 fd;
	__u32 pad;
};

/* Histogram: 8 sub-buckets per power of two, from 2^8 ns to 2^40 ns (18 min). */
#define LT_HIST_SUB_BITS 3
#define LT_HIST_MIN_BITS 8
#define LT_HIST_MAX_BITS 40
#define LT_HIST_BUCKETS ((LT_HIST_MAX_BITS - LT_HIST_MIN_BITS) * 8 + 2)

/* Exact counters of one loop since its slot was taken. Only its own thread writes. */
struct lt_stats {
	__u64 iterations; /* seen by a hook */
	__u64 slept;	  /* iterations that ended by sleeping in the poll */
	__u64 busy_ns, idle_ns;
	__u64 stalls, stall_ns;
	__u64 unconfirmed;
	__u64 iteration_max_ns, wakeup_max_ns;
	__u64 iteration_sum_ns, wakeup_sum_ns; /* of what the histograms count */
	__u32 iteration_hist[LT_HIST_BUCKETS];
	__u32 wakeup_hist[LT_HIST_BUCKETS];
};

/* ------------------------------------------------------------------ unwinding */

/* One row: what holds from pc (relative to the file's own addresses) up to the next row's pc. */
struct lt_row {
	__u32 pc;
	__u8 kind; /* enum lt_row_kind */
	__s8 bp; /* where the caller's rbp is saved: CFA + 8*bp; 0 = rbp unchanged; LT_ROW_BP_HERE = at rbp */
	__s16 cfa; /* offset that the kind adds, in words of 8 bytes: frames up to 256 KiB */
};

#define LT_ROW_BP_HERE (-128)

/*
 * Counts are rows in Debian 12's files: "C" = libcrypto 3.0, "N" = node 20 (OpenSSL inside), "G" = libgnutls.
 *
 * REG, INDEXED and RA_REG name a register n (its DWARF number) in their low four bits. Its value comes from
 * the frame that was interrupted, of a capture or of a signal. One that functions in between may have saved
 * and used (rbx, r12 to r15) is known in that frame only, else the walk ends with LT_UNWIND_UNSUPPORTED;
 * ld.so's lazy binding is the one place that needs more (CFA in rbx, 9 rows).
 *
 * What stays unsupported: the last instruction of longjmp in libc (4 rows: the caller's rsp is in a register)
 * and the like in ld.so (1) and HotSpot 25 (1); nothing in python3.11, C, N, nginx, redis, postgres, libssl,
 * libstdc++ and what rustc emits.
 */
enum lt_row_kind {
	LT_ROW_END = 0,	      /* outermost frame: return address undefined */
	LT_ROW_RSP = 1,	      /* CFA = rsp + 8*cfa */
	LT_ROW_RBP = 2,	      /* CFA = rbp + 8*cfa */
	LT_ROW_PLT = 3,	      /* CFA = rsp + 8 + ((pc & 15) >= 11) * 8 */
	LT_ROW_DEREF_RBP = 4, /* CFA = *(rbp + 8*cfa); caller's rbp = *rbp */
	LT_ROW_SIGNAL = 5,    /* signal frame: registers from the ucontext at rsp */
	LT_ROW_UNSUPPORTED = 6,
	LT_ROW_GAP = 7,	      /* no FDE: frame pointer */
	LT_ROW_DEREF_RSP = 8, /* CFA = *(rsp + 8*cfa) + 8 */
	/* DEREF_*_ADD: the low byte of cfa, unsigned, is an offset in words, the high one is added. C 6, N 6
	 */
	LT_ROW_DEREF_RSP_ADD = 9,  /* CFA = *(rsp + 8*low) + 8*high */
	LT_ROW_DEREF_RBP_ADD = 10, /* CFA = *(rbp + 8*low) + 8*high */
	LT_ROW_STACK_SWITCH = 11,  /* CFA = rbp + 16 on any stack; rbp 0 ends it. Go's systemstack, mcall */
	LT_ROW_INTERPRETED =
	    12,		 /* HotSpot's interpreter: rbp and return address at rbp, caller's rsp = *(rbp - 8) */
	LT_ROW_REG = 16, /* CFA = register + 8*cfa: C 239, N 263 (44 realigned by gcc), G 78 */
	LT_ROW_INDEXED = 32, /* CFA = *(rsp + 8*cfa + 8*register) + 8: bn_mul_mont, C 3, N 3 */
	LT_ROW_RA_REG = 48,  /* CFA = rsp + 8*cfa, return address in the register: vfork in libc, 2 */
	LT_ROW_FAR = 64,     /* n, the low six bits, continues cfa: CFA = rsp + 8*(n << 16 | cfa); redis 4 */
};

#define LT_ROWS_PER_CHUNK 512
#define LT_INDEX_PER_CHUNK 1024

/* An element of a row table: of the rows, or behind them of their index (see row_table.h). */
struct lt_chunk {
	union {
		struct lt_row rows[LT_ROWS_PER_CHUNK];
		__u32 index[LT_INDEX_PER_CHUNK];
	};
};

/* A file's unwind rows in the kernel. */
struct lt_row_table {
	__u32 file;  /* index into the map of row tables; 0 = no table */
	__u32 rows;  /* number of rows */
	__u32 first; /* pc of the first */
	__u32 shift; /* the index has an entry for each 2^shift bytes from there */
};

/* One executable mapping; sorted by start; [start, end). */
struct lt_module {
	__u64 start, end;
	__u64 bias; /* pc - bias = the file's own address */
	struct lt_row_table table;
};

enum lt_unwind_status {
	LT_UNWIND_END = 0,	 /* reached the thread's start */
	LT_UNWIND_FULL = 1,	 /* more frames than LT_MAX_USER */
	LT_UNWIND_NO_MODULE = 2, /* pc in no known mapping and no frame pointer */
	LT_UNWIND_NO_ROW = 3,
	LT_UNWIND_READ_FAULT = 4, /* stack memory not resident */
	LT_UNWIND_BAD_FRAME = 5,  /* CFA did not grow */
	LT_UNWIND_UNSUPPORTED = 6,
	LT_UNWIND_OFF = 7, /* no tables for this process (yet) */
};

/* ------------------------------------------------------------------ interpreters */

/* A function whose first argument tells what the loop is at. */
struct lt_py_watch {
	__u64 code; /* 0 = the process has not been seen to run it */
	__s32 self; /* where a frame of it keeps that argument */
	__u32 pad;
};

/* How the walk of the interpreter's frames ended. */
enum lt_py_status {
	LT_PY_END = 0,	 /* at the outermost, or there are none */
	LT_PY_FAULT = 1, /* user memory not resident, or the thread's state is gone */
	LT_PY_FULL = 2,	 /* more frames than LT_MAX_PY, or than LT_MAX_V8 */
	/* Found in user space: the native stack has eval loops that run none of the frames. */
	LT_PY_MISMATCH = 3,
};

/* How BPF finds the running asyncio Task; see struct lt_py_task. Offsets in bytes. */
struct lt_py_task_config {
	struct lt_py_watch handle;	  /* Handle._run of asyncio: self._callback steps the Task */
	struct lt_py_watch handler;	  /* RequestHandler._execute of Tornado */
	struct lt_py_watch runner;	  /* Runner.run of its gen.coroutine; `self` is of what that runs */
	__u64 cell_type;		  /* PyCell_Type: an argument that a closure uses is in a cell */
	__u64 function_type, method_type; /* PyCFunction_Type, PyMethod_Type */
	__s32 running;			  /* in a PyThreadState: the running Task; -1 = not there (<= 3.13) */
	__s32 ob_type;			  /* in any object: its type; what is its own follows */
	__s32 callback;			  /* in a Handle */
	__s32 coro, name;		  /* in a Task; -1 = not known in this version */
	__s32 coro_code;		  /* in a coroutine: the code object that it runs */
};

/* Where BPF finds the frames of a CPython thread. Offsets in bytes. */
struct lt_py_config {
	__s32 minor;  /* 3.minor; 0 = not CPython */
	__s32 cframe; /* PyThreadState.cframe, -1 = none (<= 3.10, >= 3.13) */
	__s32 frame;  /* current frame: in _PyCFrame if cframe >= 0, else in PyThreadState */
	__s32 f_code, f_previous, f_instr, f_owner; /* f_owner: is_entry byte in 3.11, -1 = none */
	__s32 co_firstlineno;
	__s32 co_filename; /* three words: file name, name, what 3.11+ calls the qualified name */
	__s32 pad;
	__u64 code_type; /* address of PyCode_Type, 0 = do not check */
	__u64 code_mask; /* and-mask for the code pointer (3.14's tagged references) */
	struct lt_py_task_config task;
};

/* One interpreter frame as captured; resolved in user space. */
struct lt_py_frame {
	__u64 code;
	__u64 instr; /* prev_instr / instr_ptr address; f_lasti for <= 3.10 */
	/* Read at capture, since another code object may come to lie at the same address. */
	__u32 firstlineno;
	__u16 names; /* lt_py_names(); 0 = not read */
	__u16 owner; /* f_owner byte: 3.11 is_entry; 3.12+ 3 = shim */
};

/* Tells code objects apart by where their names are: co_filename and the two words behind it. Never 0. */
static inline __u16 lt_py_names(__u64 filename, __u64 name, __u64 next)
{
	__u64 mixed = (filename * 31 + name) * 31 + next;

	return (__u16)(mixed * 0x9e3779b97f4a7c15ull >> 48) | 1;
}

/* Where BPF finds what a V8 frame runs. Objects are named by tagged pointers: address + 1. */
struct lt_v8_config {
	__s32 function_shared; /* JSFunction: its SharedFunctionInfo; 0 = not V8 */
	__s32 shared_scope;    /* SharedFunctionInfo: its ScopeInfo */
};

/* A native frame that a frame pointer led out of and whose slots are those of a JavaScript function. Only the
 * SharedFunctionInfo's type is left to be checked. Resolved in user space, soon: the collector moves objects.
 * Or a frame of HotSpot's interpreter: `shared` is its Method*, `bytecodes` (JDK 8: `offset`) where in the
 * method's code it is.
 */
struct lt_v8_frame {
	__u32 user; /* index of its native frame */
	__u32 pad;
	__u64 shared; /* SharedFunctionInfo */
	__u64 scope;  /* its ScopeInfo at capture: tells whether `shared` still is what it was */
	__u64
	    bytecodes; /* BytecodeArray if interpreted or baseline code; else anything; 0 = not stored yet */
	__u64 offset;  /* interpreted: bytecode offset as a Smi; else anything */
};

/* Per-process data for captures; key: tgid. Written by user space. */
struct lt_process {
	__u32 module_base; /* first index in the modules array */
	__u32 nmodules;
	struct lt_py_config py;
	struct lt_v8_config v8;
};

/* ------------------------------------------------------------------ ring records */

enum lt_record_kind {
	LT_REC_STALL = 1,      /* struct lt_stall */
	LT_REC_CAPTURE = 2,    /* struct lt_capture */
	LT_REC_PROCESS = 3,    /* struct lt_process_event */
	LT_REC_LOOP_GONE = 4,  /* struct lt_loop_event: the slot may be freed */
	LT_REC_PATH = 5,       /* struct lt_path */
	LT_REC_LOOP_FOUND = 6, /* struct lt_loop_event: a slot was taken */
	LT_REC_SUSPECT = 7,    /* struct lt_hdr: a loop runs long; sent with a wake-up */
	LT_REC_POLLED = 8,  /* struct lt_hdr: a probe saw a suspect loop poll; once a probe, with a wake-up */
	LT_REC_PY_TASK = 9, /* struct lt_py_task: right before the capture that it belongs to */
};

struct lt_hdr {
	__u64 ts_ns; /* CLOCK_MONOTONIC */
	__u32 kind;  /* enum lt_record_kind */
	__u32 size;  /* whole record */
	__u32 slot;  /* LT_NO_SLOT if none */
	__u32 tgid, tid;
	__u32 pad;
};
#define LT_NO_SLOT 0xffffffffu

enum lt_ended_by { LT_ENDED_POLL = 0, LT_ENDED_EXIT = 1, LT_ENDED_EXEC = 2, LT_ENDED_KILL = 3 };

/* An iteration that ended at or over the threshold. */
struct lt_stall {
	struct lt_hdr hdr;
	__u64 generation;
	__u64 end_ns;
	__u32 ended_by; /* enum lt_ended_by */
	__u32 poll_kind;
	__s32 poll_fd;
	__u32 pad;
	char comm[LT_COMM_LEN]; /* as the thread was called then */
	struct lt_iteration it;
};

enum lt_capture_reason { LT_CAPTURE_SWITCH = 1, LT_CAPTURE_SAMPLE = 2 };

/* Stacks of one moment: how many frames of which kind, and where the thread was. */
struct lt_capture_head {
	struct lt_hdr hdr;
	__u64 generation;
	__u64 seq;    /* iteration */
	__u64 id;     /* capture id within the slot, from 1 */
	__u32 reason; /* enum lt_capture_reason */
	__u32 off_reason;
	__s32 nr;
	__u32 unwind_status;
	__u32 nkernel, nuser, npy;
	__s32 py_status; /* enum lt_py_status */
	__u64 ip, sp, bp;
	__u64 weight_ns; /* samples: time since the previous sample or the segment's start */
	__u64 r9, r15;	 /* V8's bytecode handlers: the present bytecode offset, the dispatch table */
	__u32 nv8;
	__u32 pad;
};

/* data: kernel frames, user frames, py frames of 3 words each, v8 frames of 5. */
struct lt_capture {
	struct lt_capture_head head;
	__u64 data[LT_MAX_KERNEL + LT_MAX_USER + 3 * LT_MAX_PY + 5 * LT_MAX_V8];
};

/* What the Python frames of a capture ran for. Pointers of that moment: objects die and their memory is
 * reused, so what must not be mistaken is copied. All is as found: user space checks the types. */
struct lt_py_task {
	struct lt_hdr hdr;
	__u64 generation;
	__u64 id; /* of the capture */
	__u64 task, task_type;
	__u64 coro, coro_code;
	__u64 handler_type; /* 0 = no frame of Tornado's */
	__u64 name;
	__u32 name_bytes; /* valid bytes of name_object; 0 = none */
	__u32 pad;
	__u8 name_object[LT_TASK_NAME_LEN]; /* a str, or an int: "Task-N" */
};

enum lt_process_change { LT_PROC_FORK = 1, LT_PROC_EXEC = 2, LT_PROC_RENAME = 3, LT_PROC_EXIT = 4 };

struct lt_process_event {
	struct lt_hdr hdr;
	__u32 change; /* enum lt_process_change */
	__u32 parent; /* fork: the parent's tgid */
	char comm[LT_COMM_LEN];
};

struct lt_loop_event {
	struct lt_hdr hdr;
	__u64 generation;
};

/* The path of a wait's file, from its leaf up: components joined by user space. */
struct lt_path {
	struct lt_hdr hdr;
	__u64 inode;
	__u32 device;
	__u32 length;
	char path[LT_PATH_LEN];
};

/* Why something did not reach user space; counted per CPU. */
enum lt_drop {
	LT_DROP_STALL_RING_FULL = 0,
	LT_DROP_CAPTURE_RING_FULL = 1,
	LT_DROP_PROCESS_RING_FULL = 2,
	LT_DROP_PATH_RING_FULL = 3,
	LT_DROP_GONE_RING_FULL = 4,
	LT_DROP_LOOPS_FULL = 5,	    /* a thread polls, but every slot is taken */
	LT_DROP_CAPTURE_BUDGET = 6, /* a stack was not taken: the thread's budget was spent */
	LT_DROP_STORAGE = 7,	    /* task storage could not be made */
	LT_DROP_HOOK_MISSED =
	    8, /* the kernel did not run one of our programs: counted by it, see bpf_prog_info */
	LT_DROP_SWITCH_HEALED =
	    9, /* a switch-in that the kernel did not tell us of, made up for by its own stamps */
	LT_NR_DROPS = 10,
};

#endif /* LOOPTRACE_H */

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause */
/*
 * System call numbers (x86-64, arch/x86/entry/syscalls/syscall_64.tbl) and what their first argument
 * is. The one place that another architecture has to fill in. Pure; compiled natively in tests too.
 */
#ifndef LOOPTRACE_ARCH_H
#define LOOPTRACE_ARCH_H

#include "looptrace.h"

#define LT_NR_poll 7
#define LT_NR_select 23
#define LT_NR_nanosleep 35
#define LT_NR_clone 56
#define LT_NR_vfork 58
#define LT_NR_execve 59
#define LT_NR_wait4 61
#define LT_NR_futex 202
#define LT_NR_clock_nanosleep 230
#define LT_NR_epoll_wait 232
#define LT_NR_waitid 247
#define LT_NR_pselect6 270
#define LT_NR_ppoll 271
#define LT_NR_epoll_pwait 281
#define LT_NR_execveat 322
#define LT_NR_io_uring_enter 426
#define LT_NR_clone3 435
#define LT_NR_epoll_pwait2 441

#define LT_IORING_ENTER_GETEVENTS 1

static inline __attribute__((always_inline)) __u32 lt_poll_kind(__s64 nr, __u64 min_complete, __u64 flags)
{
	switch (nr) {
	case LT_NR_epoll_wait:
	case LT_NR_epoll_pwait:
	case LT_NR_epoll_pwait2:
		return LT_POLL_EPOLL;
	case LT_NR_poll:
	case LT_NR_ppoll:
		return LT_POLL_POLL;
	case LT_NR_select:
	case LT_NR_pselect6:
		return LT_POLL_SELECT;
	case LT_NR_io_uring_enter:
		return min_complete > 0 && (flags & LT_IORING_ENTER_GETEVENTS) ? LT_POLL_IO_URING
									       : LT_POLL_NONE;
	}
	return LT_POLL_NONE;
}

/* The first argument is a file descriptor. */
static inline __attribute__((always_inline)) int lt_takes_fd(__s32 nr)
{
	switch (nr) {
	case 0:
	case 1:
	case 5:
	case 8:
	case 16:
	case 17:
	case 18:
	case 19:
	case 20: /* read write fstat lseek ioctl pread pwrite readv writev */
	case 40:
	case 42:
	case 43:
	case 44:
	case 45:
	case 46:
	case 47:
	case 48: /* sendfile connect accept sendto recvfrom sendmsg recvmsg shutdown */
	case 72:
	case 73:
	case 74:
	case 75:
	case 77:
	case 78: /* fcntl flock fsync fdatasync ftruncate getdents */
	case 187:
	case 217:
	case 232:
	case 275:
	case 276:
	case 277:
	case 281:
	case 285:
	case 288: /* readahead getdents64 epoll_wait splice tee sync_file_range epoll_pwait fallocate accept4
		   */
	case 295:
	case 296:
	case 299:
	case 306:
	case 307:
	case 326:
	case 327:
	case 328: /* preadv pwritev recvmmsg syncfs sendmmsg copy_file_range preadv2 pwritev2 */
	case LT_NR_io_uring_enter:
	case LT_NR_epoll_pwait2:
		return 1;
	}
	return 0;
}

/* Waits in it end when a child process ends. */
static inline __attribute__((always_inline)) int lt_waits_for_child(__s32 nr)
{
	return nr == LT_NR_wait4 || nr == LT_NR_waitid || nr == LT_NR_clone || nr == LT_NR_vfork ||
	       nr == LT_NR_clone3;
}

/* It can end another thread's wait on a descriptor: moves data or room for data, closes, unlocks. */
static inline __attribute__((always_inline)) int lt_gives_data(__s32 nr)
{
	switch (nr) {
	case 0:
	case 1:
	case 3:
	case 17:
	case 18:
	case 19:
	case 20:
	case 40: /* read write close pread pwrite readv writev sendfile */
	case 42:
	case 43:
	case 44:
	case 45:
	case 46:
	case 47:
	case 48: /* connect accept sendto recvfrom sendmsg recvmsg shutdown */
	case 73:
	case 275:
	case 276:
	case 288:
	case 299:
	case 307: /* flock splice tee accept4 recvmmsg sendmmsg */
		return 1;
	}
	return 0;
}

/* What tells two waits in the same system call apart. `fd` is the polled descriptor or -1. */
static inline __attribute__((always_inline)) __u64 lt_wait_key(__s32 nr, __u64 arg0, __s32 fd)
{
	if (nr == LT_NR_futex || nr == LT_NR_wait4)
		return arg0;
	if (nr == LT_NR_waitid)
		return 0;
	return fd >= 0 ? (__u64)fd : 0;
}

#endif /* LOOPTRACE_ARCH_H */

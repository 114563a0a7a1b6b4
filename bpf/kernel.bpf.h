/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The few kernel types that looptrace reads, reduced to the members it reads; CO-RE relocates them on the
 * running kernel. Hand-written instead of a vmlinux.h of 130,000 lines: it shows the whole surface that
 * a kernel change can break, and a member that a kernel lacks is tested with bpf_core_field_exists.
 */
#ifndef LOOPTRACE_KERNEL_BPF_H
#define LOOPTRACE_KERNEL_BPF_H

#include <linux/types.h>
#include <stdbool.h>

typedef __u64 u64;
typedef __u32 u32;
typedef __s64 s64;
typedef __s32 s32;
typedef __u16 u16;
typedef __u8 u8;

#include <linux/bpf.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct pt_regs {
	long unsigned int bp, ax, dx, si, di, r9, r10, r15, orig_ax, ip, sp;
};

struct sched_info {
	long long unsigned int run_delay;
	long long unsigned int last_arrival;
	long long unsigned int last_queued;
};

struct cfs_bandwidth {
	u64 throttled_time;
};

struct task_group {
	struct task_group *parent;
	struct cfs_bandwidth cfs_bandwidth;
};

struct qstr {
	const unsigned char *name;
};

struct super_block {
	u32 s_dev;
};

struct inode {
	unsigned short i_mode;
	struct super_block *i_sb;
	long unsigned int i_ino;
	u32 i_rdev;
};

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
};

struct path {
	struct dentry *dentry;
};

struct file {
	struct inode *f_inode;
	struct path f_path;
	void *private_data;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct in6_addr {
	u8 in6_u[16];
};

struct sock_common {
	u32 skc_daddr;
	u32 skc_rcv_saddr;
	u16 skc_dport;
	u16 skc_num;
	unsigned short skc_family;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
};

struct sock {
	struct sock_common __sk_common;
	u16 sk_protocol;
	u16 sk_type;
};

struct unix_address {
	int len;
	char name[0];
};

struct socket {
	struct sock *sk;
	short type;
};

typedef struct {
	int counter;
} atomic_t;

struct signal_struct {
	atomic_t live;
};

struct bpf_local_storage;
struct mm_struct;

struct task_struct {
	unsigned int flags;
	unsigned int __state;
	int pid;
	int tgid;
	int exit_code;
	char comm[16];
	u64 start_boottime;
	u64 self_exec_id;
	struct mm_struct *mm;
	struct task_struct *group_leader;
	struct files_struct *files;
	struct signal_struct *signal;
	struct sched_info sched_info;
	struct task_group *sched_task_group;
	struct bpf_local_storage *bpf_storage;
};

struct linux_binprm;

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

struct bpf_perf_event_data;

#pragma clang attribute pop

#endif /* LOOPTRACE_KERNEL_BPF_H */

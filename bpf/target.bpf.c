// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What a file descriptor is, read in the kernel at the end of a long wait: user space often comes too late,
 * for a client closes its connection, and open().read() its file, right after the stall.
 */
#include "common.bpf.h"

#define S_IFMT 0xf000
#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define PATH_PARTS 12

static __always_inline void socket_target(struct file *file, struct lt_target *target)
{
	struct socket *socket = BPF_CORE_READ(file, private_data);
	struct sock *sk = BPF_CORE_READ(socket, sk);
	u16 family = BPF_CORE_READ(sk, __sk_common.skc_family), protocol, port;
	u32 v4;

	target->kind = LT_TARGET_SOCKET;
	target->family = family;
	if (family == AF_UNIX) {
		target->kind = LT_TARGET_UNIX;
		return;
	}
	if (family != AF_INET && family != AF_INET6)
		return;
	protocol = BPF_CORE_READ(sk, sk_protocol);
	target->kind = protocol == IPPROTO_TCP	 ? LT_TARGET_TCP
		       : protocol == IPPROTO_UDP ? LT_TARGET_UDP
						 : LT_TARGET_SOCKET;
	target->local_port = BPF_CORE_READ(sk, __sk_common.skc_num);
	port = BPF_CORE_READ(sk, __sk_common.skc_dport);
	target->peer_port = (port >> 8) | (port << 8);
	if (family == AF_INET) {
		v4 = BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr);
		__builtin_memcpy(target->local, &v4, 4);
		v4 = BPF_CORE_READ(sk, __sk_common.skc_daddr);
		__builtin_memcpy(target->peer, &v4, 4);
	} else {
		BPF_CORE_READ_INTO(&target->local, sk, __sk_common.skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO(&target->peer, sk, __sk_common.skc_v6_daddr);
	}
}

/* Sends the path, leaf first: "leaf/parent/grandparent"; user space turns it round. */
static __always_inline void send_path(struct file *file, struct lt_slot *s, u32 index, u64 inode, u32 device)
{
	struct lt_path *e = bpf_ringbuf_reserve(&ring, sizeof(*e), 0);
	struct dentry *d, *parent;
	u32 used = 0;
	long n;
	int i;

	if (!e) {
		count_drop(LT_DROP_PATH_RING_FULL);
		return;
	}
	fill_header(&e->hdr, LT_REC_PATH, sizeof(*e), bpf_ktime_get_ns(), index, s->tgid, s->tid);
	e->inode = inode;
	e->device = device;
	d = BPF_CORE_READ(file, f_path.dentry);
	for (i = 0; i < PATH_PARTS; i++) {
		const unsigned char *name = BPF_CORE_READ(d, d_name.name);

		parent = BPF_CORE_READ(d, d_parent);
		if (parent == d || used > LT_PATH_LEN / 2)
			break;
		n = bpf_probe_read_kernel_str(&e->path[used < LT_PATH_LEN / 2 ? used : LT_PATH_LEN / 2],
					      LT_PATH_LEN / 2, name);
		if (n <= 1)
			break;
		used += n; /* the NUL stays, as the separator */
		d = parent;
	}
	e->length = used;
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}

int resolve_target(u32 index, u64 files)
{
	struct lt_slot *s = bpf_map_lookup_elem(&slots, &index);
	struct lt_target *target;
	struct fdtable *fdt;
	struct inode *inode;
	struct file **fds;
	struct file *file = 0;
	u16 mode;
	s32 fd;

	if (!s)
		return 0;
	fd = s->off_fd;
	target = &s->in_target;
	target->kind = LT_TARGET_NONE;
	target->fd = fd;
	fdt = BPF_CORE_READ((struct files_struct *)files, fdt);
	if (!fdt || (u32)fd >= BPF_CORE_READ(fdt, max_fds))
		return 0;
	fds = BPF_CORE_READ(fdt, fd);
	if (bpf_probe_read_kernel(&file, sizeof(file), fds + fd) || !file)
		return 0;
	inode = BPF_CORE_READ(file, f_inode);
	mode = BPF_CORE_READ(inode, i_mode);
	target->inode = BPF_CORE_READ(inode, i_ino);
	target->device = BPF_CORE_READ(inode, i_sb, s_dev);
	target->name[0] = 0;
	switch (mode & S_IFMT) {
	case 0xc000:
		socket_target(file, target);
		return 0;
	case 0x1000:
		target->kind = LT_TARGET_PIPE;
		return 0;
	case 0x8000:
		target->kind = LT_TARGET_FILE;
		break;
	case 0x4000:
		target->kind = LT_TARGET_DIRECTORY;
		break;
	case 0x2000:
	case 0x6000:
		target->kind = LT_TARGET_DEVICE;
		break;
	default:
		target->kind = LT_TARGET_ANON;
		break;
	}
	bpf_probe_read_kernel_str(target->name, sizeof(target->name),
				  BPF_CORE_READ(file, f_path.dentry, d_name.name));
	if (target->kind == LT_TARGET_FILE || target->kind == LT_TARGET_DIRECTORY)
		send_path(file, s, index, target->inode, target->device);
	return 0;
}

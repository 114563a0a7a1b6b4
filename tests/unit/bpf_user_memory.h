// SPDX-License-Identifier: Apache-2.0
// What the BPF programs' headers that read the thread's memory need to be compiled for user space. For one
// source file of a program only.
#pragma once

#include <sys/uio.h>
#include <unistd.h>

#include <cstdint>

namespace {

using s32 = int32_t;
using u32 = uint32_t;
using u64 = uint64_t;

uint64_t unreadable_from = 0, unreadable_to = 0;
int reads = 0;

// As in the kernel, an address of nothing is an error and no crash.
long bpf_probe_read_user(void* into, u32 size, const void* from) {
  const auto at = reinterpret_cast<uint64_t>(from);
  ++reads;
  if (at < unreadable_to && at + size > unreadable_from) return -14;
  const iovec local{into, size}, remote{const_cast<void*>(from), size};
  return process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == static_cast<ssize_t>(size) ? 0 : -14;
}

}  // namespace

#undef __always_inline  // libc has one too
#define __always_inline inline

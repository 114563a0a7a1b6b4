// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <span>

#include "record/cause.h"

namespace looptrace {
namespace {

using Name = std::string_view;
using Names = std::span<const Name>;

bool is_one_of(std::string_view name, Names names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool passes_through(const WaitFacts& facts, Names functions) {
  return std::any_of(facts.kernel_functions.begin(), facts.kernel_functions.end(),
                     [&](std::string_view function) { return is_one_of(function, functions); });
}

// clang-format off
// Kernel functions that say what a wait is about, whichever way it was entered (names of 5.15 to 6.18).
constexpr Name kStop[] = {
    "do_signal_stop", "ptrace_stop", "do_freezer_trap", "__refrigerator", "do_jobctl_trap",
};
constexpr Name kReclaim[] = {
    "try_to_free_pages", "try_to_free_mem_cgroup_pages", "shrink_node", "shrink_lruvec",
    "mem_cgroup_handle_over_high", "__mem_cgroup_handle_over_high", "balance_pgdat",
    "__alloc_pages_direct_reclaim", "__alloc_pages_direct_compact", "compact_zone",
    "mem_cgroup_out_of_memory", "reclaim_throttle", "throttle_direct_reclaim",
};
constexpr Name kSwapIn[] = {"do_swap_page", "swap_read_folio", "swap_readpage", "swapin_readahead"};
constexpr Name kFault[] = {
    "exc_page_fault", "asm_exc_page_fault", "do_user_addr_fault", "handle_mm_fault", "do_page_fault",
    "do_mem_abort", "el0_da", "faultin_page",
};
constexpr Name kDirtyThrottle[] = {"balance_dirty_pages", "balance_dirty_pages_ratelimited_flags"};
constexpr Name kVfork[] = {"wait_for_vfork_done"};
constexpr Name kStorage[] = {
    "io_schedule", "io_schedule_timeout", "folio_wait_bit_common", "submit_bio_wait", "blk_mq_get_tag",
    "rq_qos_wait", "rpc_wait_bit_killable", "fuse_simple_request", "__fuse_simple_request",
    "jbd2_log_wait_commit", "filemap_fdatawait_range", "iomap_dio_rw", "__iomap_dio_rw",
};

// System calls whose cause their name alone decides.
constexpr Name kSleepCalls[] = {"nanosleep", "clock_nanosleep"};
constexpr Name kChildCalls[] = {"wait4", "waitid", "vfork", "clone", "clone3", "fork"};
constexpr Name kLockCalls[] = {
    "futex", "futex_wait", "futex_waitv", "flock", "semop", "semtimedop", "msgrcv", "msgsnd", "mq_timedsend",
    "mq_timedreceive",
};
constexpr Name kFutexCalls[] = {"futex", "futex_wait"};
constexpr Name kSocketCalls[] = {
    "connect", "accept", "accept4", "recvfrom", "recvmsg", "recvmmsg", "sendto", "sendmsg", "sendmmsg",
    "shutdown", "getsockopt", "setsockopt",
};
constexpr Name kMemoryCalls[] = {
    "mmap", "munmap", "mremap", "mprotect", "brk", "madvise", "mlock", "mlock2", "mlockall", "munlock",
    "munlockall", "pkey_mprotect",
};
constexpr Name kFileCalls[] = {
    "open", "openat", "openat2", "creat", "stat", "fstat", "lstat", "newfstatat", "statx", "statfs",
    "fstatfs", "access", "faccessat", "faccessat2", "readlink", "readlinkat", "getdents", "getdents64",
    "fsync", "fdatasync", "sync", "syncfs", "sync_file_range", "msync", "rename", "renameat", "renameat2",
    "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "link", "linkat", "symlink", "symlinkat", "truncate",
    "ftruncate", "fallocate", "fadvise64", "readahead", "chmod", "fchmod", "fchmodat", "fchmodat2", "chown",
    "fchown", "lchown", "fchownat", "utimensat", "getxattr", "lgetxattr", "fgetxattr", "setxattr",
    "lsetxattr", "fsetxattr", "listxattr", "llistxattr", "flistxattr", "chdir", "fchdir", "getcwd", "lseek",
    "mount", "umount2", "execve", "execveat", "copy_file_range", "io_submit", "mknod", "mknodat",
    "removexattr", "lremovexattr", "fremovexattr", "name_to_handle_at", "open_by_handle_at",
};
constexpr Name kPollCalls[] = {
    "poll", "ppoll", "select", "pselect6", "epoll_wait", "epoll_pwait", "epoll_pwait2",
};
constexpr Name kPlainPollCalls[] = {"poll", "ppoll"};
constexpr Name kSelectCalls[] = {"select", "pselect6"};
constexpr Name kEpollCalls[] = {"epoll_wait", "epoll_pwait", "epoll_pwait2"};

// What a descriptor may be.
constexpr Name kSockets[] = {"tcp", "udp", "unix", "netlink", "socket"};
constexpr Name kFiles[] = {"file", "directory", "device"};
constexpr Name kProcesses[] = {"pidfd", "process"};
// clang-format on

struct Ruling {
  Cause cause;
  Confidence confidence;
};

constexpr Ruling certain(Cause cause) { return {cause, Confidence::certain}; }
constexpr Ruling inferred(Cause cause) { return {cause, Confidence::inferred}; }
constexpr Ruling kNotKnown = {Cause::other, Confidence::unknown};

std::string_view target_kind(const WaitFacts& facts) {
  return facts.target ? std::string_view(facts.target->kind) : std::string_view();
}

// What a wait in read, write, poll and the like is, by what the descriptor was.
Ruling rule_of_target(std::string_view kind) {
  if (is_one_of(kind, kSockets)) return certain(Cause::network);
  if (is_one_of(kind, kFiles)) return certain(Cause::file);
  if (kind == "pipe") return certain(Cause::pipe);
  if (kind == "timerfd") return certain(Cause::sleep);
  if (is_one_of(kind, kProcesses)) return certain(Cause::child);
  if (kind == "futex") return certain(Cause::lock);
  // An eventfd is how threads wake each other.
  if (kind == "eventfd") return inferred(Cause::lock);
  // Sets of descriptors: nearly always sockets, but the members were not seen.
  if (kind == "epoll") return inferred(Cause::network);
  if (kind == "io_uring") return inferred(Cause::file);
  return kNotKnown;
}

bool polls_nothing(const WaitFacts& facts) {
  if (is_one_of(facts.syscall, kSelectCalls)) return facts.arg0 == 0;
  return is_one_of(facts.syscall, kPlainPollCalls) && facts.arg1 == 0;
}

Ruling rule_of_poll(const WaitFacts& facts) {
  if (polls_nothing(facts)) return certain(Cause::sleep);
  const Ruling by_target = rule_of_target(target_kind(facts));
  if (by_target.cause == Cause::other && is_one_of(facts.syscall, kEpollCalls))
    return inferred(Cause::network);
  return by_target;
}

bool is_lock_command(uint64_t fcntl_command) {
  constexpr uint64_t kSetLockWait = 7, kOpenFileSetLockWait = 38;  // F_SETLKW, F_OFD_SETLKW
  return fcntl_command == kSetLockWait || fcntl_command == kOpenFileSetLockWait;
}

Ruling rule_of_syscall(const WaitFacts& facts) {
  const std::string_view name = facts.syscall;
  if (facts.global_lock) return certain(Cause::gil);
  if (facts.runtime_sleep) return inferred(Cause::sleep);
  if (is_one_of(name, kSleepCalls)) return certain(Cause::sleep);
  if (facts.collector && is_one_of(name, kFutexCalls)) return inferred(Cause::gc);
  if (is_one_of(name, kLockCalls)) return certain(Cause::lock);
  if (is_one_of(name, kChildCalls)) return certain(Cause::child);
  if (facts.child_wait && is_one_of(name, kPollCalls)) return inferred(Cause::child);
  if (is_one_of(name, kPollCalls)) return rule_of_poll(facts);
  if (is_one_of(name, kSocketCalls)) return certain(Cause::network);
  if (is_one_of(name, kFileCalls)) return certain(Cause::file);
  if (is_one_of(name, kMemoryCalls)) return inferred(Cause::page_fault);
  if (name == "fcntl" && is_lock_command(facts.arg1)) return certain(Cause::lock);
  const Ruling by_target = rule_of_target(target_kind(facts));
  if (by_target.cause != Cause::other) return by_target;
  if (facts.uninterruptible || passes_through(facts, kStorage)) return inferred(Cause::file);
  return kNotKnown;
}

Wait as_wait(const WaitFacts& facts, Cause cause) {
  Wait wait;
  wait.cause = cause;
  wait.syscall = facts.syscall.empty() && facts.page_fault ? "page fault" : std::string(facts.syscall);
  wait.target = facts.target;
  if (!wait.target && !facts.runtime_sleep)  // which futex a sleep waits on tells nothing
    wait.target = implied_target(facts.syscall, facts.arg0, facts.arg1);
  wait.woken_by = facts.woken_by;
  return wait;
}

// A verdict that the kernel's own stack gives: `what` names it, the system call says where it struck.
Verdict seen_in_kernel(const WaitFacts& facts, Cause cause, std::string what) {
  if (!facts.syscall.empty()) what += " in " + std::string(facts.syscall);
  return {cause, Confidence::inferred, std::move(what)};
}

}  // namespace

std::optional<WaitTarget> implied_target(std::string_view syscall, uint64_t arg0, uint64_t arg1) {
  constexpr uint64_t kOnePid = 1;  // P_PID
  WaitTarget target;
  if (is_one_of(syscall, kFutexCalls) && arg0) {
    target.kind = "futex";
    target.address = arg0;
    return target;
  }
  const bool one_child = syscall == "wait4" || (syscall == "waitid" && arg0 == kOnePid);
  // Arguments of type pid_t: the upper half of the register is not theirs. 0 and below name a group.
  const auto pid = static_cast<int32_t>(syscall == "waitid" ? arg1 : arg0);
  if (one_child && pid > 0) {
    target.kind = "process";
    target.pid = static_cast<uint32_t>(pid);
    return target;
  }
  return std::nullopt;
}

Verdict judge_wait(const WaitFacts& facts) {
  if (facts.stopped || passes_through(facts, kStop)) {
    return {Cause::stopped, Confidence::certain, "stopped by a signal, a tracer or the freezer"};
  }
  if (passes_through(facts, kReclaim)) return seen_in_kernel(facts, Cause::page_fault, "memory reclaim");
  if (passes_through(facts, kSwapIn)) return seen_in_kernel(facts, Cause::page_fault, "swapped-out memory");
  if (facts.page_fault || passes_through(facts, kFault)) {
    const Confidence confidence = facts.page_fault ? Confidence::certain : Confidence::inferred;
    std::string detail = describe_wait(as_wait(facts, Cause::page_fault));
    if (!facts.page_fault) detail = "page fault in " + std::string(facts.syscall);
    return {Cause::page_fault, confidence, detail};
  }
  if (passes_through(facts, kDirtyThrottle))
    return seen_in_kernel(facts, Cause::file, "writeback throttling");
  if (passes_through(facts, kVfork)) return {Cause::child, Confidence::certain, std::string(facts.syscall)};

  const Ruling ruling = facts.syscall.empty() ? kNotKnown : rule_of_syscall(facts);
  if (ruling.cause == Cause::gc) return {ruling.cause, ruling.confidence, "waits for its helpers"};
  return {ruling.cause, ruling.confidence, describe_wait(as_wait(facts, ruling.cause))};
}

}  // namespace looptrace

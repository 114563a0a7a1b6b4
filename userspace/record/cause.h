// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "record/stall.h"

namespace looptrace {

/// What the kernel saw of one wait. Pure data: every rule can be tested from a table.
struct WaitFacts {
  std::string_view syscall = {};  ///< "poll"; empty = no system call was under way
  uint64_t arg0 = 0, arg1 = 0;    ///< its first two arguments
  bool stopped = false;           ///< SIGSTOP, a tracer, the freezer
  bool page_fault = false;        ///< user code faulted: no system call
  bool uninterruptible = false;   ///< state D: storage, memory or a kernel lock, never a peer's answer
  bool global_lock = false;       ///< the futex is the runtime's global lock
  bool runtime_sleep = false;  ///< the runtime's own sleep is on the stack: it may wait on a futex for that
  bool child_wait = false;     ///< the runtime's synchronous run of a child process is on the stack
  bool collector = false;      ///< the runtime's collector waits, for its own helpers
  std::optional<WaitTarget> target = {};
  std::optional<Peer> woken_by = {};
  std::vector<std::string_view> kernel_functions = {};  ///< its kernel stack, leaf first; empty = not taken
};

struct Verdict {
  Cause cause = Cause::other;
  Confidence confidence = Confidence::unknown;
  std::string detail;  ///< "poll on tcp 127.0.0.1:5432"; may be empty
};

/// The target that the arguments alone tell: the word of a futex, the child of a wait4 or waitid.
std::optional<WaitTarget> implied_target(std::string_view syscall, uint64_t arg0, uint64_t arg1);

/// The cause of one wait. Kernel functions overrule the system call (memory reclaim inside a read), the
/// system call decides among what is left, and the kind of its target among that.
Verdict judge_wait(const WaitFacts& facts);

using FramePredicate = std::function<bool(const Frame&)>;

/// Whether it is the garbage collector itself that runs or waits, not code that it calls (finalisers).
bool collects(const std::vector<Frame>& frames, const FramePredicate& is_gc);

/// What the stall record itself does not hold and its verdict needs.
struct StallFacts {
  uint64_t throttled_ns = 0;            ///< part of runqueue_ns: the cgroup's CPU quota was used up
  std::span<const Verdict> waits = {};  ///< one for each of stall.waits; empty: the waits' own causes
  /// The frame is the runtime's garbage collector; may be null.
  FramePredicate is_gc = {};
};

/// The cause of the whole stall: the largest part of the time decides, and within `blocked` the cause that
/// has most of the waits' time. Needs the parts, waits and stacks of `stall`.
Verdict judge_stall(const Stall& stall, const StallFacts& facts);

/// "tcp 127.0.0.1:5432", "file /var/x", "pid 812", "futex 0x7f10"; "" where there is nothing to tell.
std::string describe_target(const WaitTarget& target);

/// "db-pool[7159]"
std::string describe_peer(const Peer& peer);

/// "poll on tcp 127.0.0.1:5432", "futex 0x7f10, woken by db-pool[7159]", "wait4 on pid 812".
std::string describe_wait(const Wait& wait);

}  // namespace looptrace

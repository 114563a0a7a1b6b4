// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "bpf/engine.h"
#include "record/stall.h"
#include "trace/lone_poll.h"
#include "trace/processes.h"
#include "trace/raw.h"
#include "trace/stack_builder.h"
#include "trace/stack_tally.h"
#include "trace/stats_mark.h"

namespace looptrace {

/// A stack that was captured in the open iteration of a loop, with all captures that found the same one.
struct PendingStack {
  RawCapture capture;
  std::vector<uint64_t> ids;  ///< capture ids of switches; empty for samples
  uint64_t sampled_ns = 0;    ///< samples: on-CPU time that they stand for
  uint64_t samples = 0;
};

/// A stack that user space took of a blocked thread, because BPF's budget for captures was spent.
struct LiveStack {
  int32_t nr = -1;
  uint64_t key = 0;
  RawCapture capture;
};

/// What a descriptor was, looked up while the thread was blocked in a wait for it: a client may have closed
/// it by the time that the wait is booked.
struct LiveTarget {
  int32_t nr = -1;
  uint64_t key = 0;
  WaitTarget target;
};

/// Who was seen to have the global lock while the loop waited for it.
struct SeenHolder {
  LockHolder holder;
  std::string comm;
  uint64_t times = 0;
};

/// When something was last looked for, and when to look again if that was in vain.
struct LastLook {
  uint64_t at_ns = 0, again_ns = 0;

  void ended(uint64_t now, bool in_vain) {
    again_ns = now + (in_vain ? std::min<uint64_t>((now - at_ns) * 50, 20'000'000) : 0);
  }
};

/// What user space keeps of a loop between its records.
struct LoopState {
  uint32_t slot = 0, tgid = 0, tid = 0;
  uint64_t generation = 0;
  bool ignored = false;           ///< the process is a target, this thread is not
  std::optional<LonePoll> polls;  ///< what its poll is on, where that was looked at
  uint64_t seq = 0;               ///< iteration that `pending` belongs to
  std::vector<PendingStack> pending;
  std::vector<LiveStack> live;
  std::vector<LiveTarget> live_targets;
  std::vector<SeenHolder> holders;
  std::map<uint64_t, std::string> paths;  ///< inode -> path, of this iteration's waits
  std::string open_id;                    ///< id given to the iteration `open_seq` by an open record
  uint64_t cut_seq = 0;                   ///< iteration that was given up at a window's end
  uint64_t open_seq = 0;
  uint64_t open_time_ns = 0;       ///< its start as given there: both records of an id tell the same time
  uint64_t reported_mark_ns = 0;   ///< largest mark reported as open
  std::optional<lt_py_task> task;  ///< came in last: of the capture that follows
  LastLook states_look;            ///< for its thread's states
  StatsMark last;                  ///< at the last interval
  StackTally stacks, last_stacks;
  uint64_t last_busy_ns = 0, last_idle_ns = 0;

  /// Nothing is reported of it.
  bool silent() const { return ignored || (polls && !polls->no_loop.empty()); }

  /// What is kept from now on belongs to iteration `now`; what belongs to another one is dropped.
  void turn_to(uint64_t now) {
    if (seq == now) return;
    seq = now;
    pending.clear();
    live.clear();
    live_targets.clear();
    holders.clear();
    paths.clear();
  }
};

/// An iteration to be reported: closed, or a snapshot of an open one.
struct IterationView {
  const lt_iteration& it;
  uint64_t end_ns;
  uint32_t ended_by;   ///< enum lt_ended_by
  uint32_t poll_kind;  ///< enum lt_poll_kind
  int32_t poll_fd;
  bool open;
};

/// Makes the domain's Stall out of the kernel's account and the captured stacks.
class Assembler {
 public:
  Assembler(StackBuilder& stacks, ProcFs procfs, uint64_t threshold_ns)
      : stacks_(stacks), procfs_(std::move(procfs)), threshold_ns_(threshold_ns) {}

  /// Keeps a capture for its iteration; the newest iteration wins.
  void add_capture(LoopState& loop, RawCapture capture, const lt_slot& slot);
  /// Keeps who had the lock that the iteration waited for.
  void add_holder(LoopState& loop, uint64_t seq, LockHolder holder);
  void add_path(LoopState& loop, const lt_path& path);

  Stall build(LoopState& loop, TracedProcess& process, const IterationView& view, std::string thread_name,
              std::string id, bool& modules_stale);

  void set_threshold(uint64_t threshold_ns) { threshold_ns_ = threshold_ns; }

  /// Counts a stack that add_capture() did not see; `mended`: one that it saw, walked anew.
  void count_stack(LoopState& loop, uint32_t status);
  void count_mended(LoopState& loop, uint32_t from, uint32_t to);
  StackCounts stacks() const { return stacks_tally_.since({}); }
  uint64_t stacks_pruned() const { return stacks_pruned_; }

 private:
  WaitTarget render_target(const LoopState& loop, const lt_iteration& it, const lt_wait& wait,
                           const TracedProcess& process) const;
  void prune(LoopState& loop, const lt_slot& slot);

  StackBuilder& stacks_;
  ProcFs procfs_;
  uint64_t threshold_ns_;
  uint64_t stacks_pruned_ = 0;
  StackTally stacks_tally_;
};

const char* poll_kind_name(uint32_t kind);

}  // namespace looptrace

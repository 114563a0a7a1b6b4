// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "bpf/engine.h"
#include "targets/procfs.h"
#include "trace/assembler.h"
#include "trace/processes.h"

namespace looptrace {

/// What a loop's thread was at, kept for the record of its iteration: the stacks that BPF captured, and what
/// only user space can look up, while the thread is still blocked there. All looks are bounded, and dropped
/// if the thread has run meanwhile.
class Captures {
 public:
  Captures(Engine& engine, ProcFs procfs, ProcessTable& processes, Assembler& assembler)
      : engine_(engine), procfs_(std::move(procfs)), processes_(processes), assembler_(assembler) {}

  /// A capture record came from the ring, of the loop in its slot.
  void add(RawCapture capture, LoopState& loop);

  /// What the descriptor is that the thread is blocked on in `seen`, a copy of its slot.
  void keep_target(LoopState& loop, const lt_slot& seen);
  /// The stack, and who has the lock that it waits for, of a thread that is blocked in `seen`.
  void look_at_blocked(LoopState& loop, TracedProcess& process, const lt_slot& seen);

 private:
  bool refresh(TracedProcess& process);
  void check_interpreter(RawCapture& capture, LoopState& loop, const TracedProcess& process);
  void see_task(RawCapture& capture, LoopState& loop);
  void see_holder(LoopState& loop, const lt_slot& seen);
  void take_stack(LoopState& loop, const TracedProcess& process, const lt_slot& seen);
  void mend(LoopState& loop, TracedProcess& process, lt_slot seen);

  Engine& engine_;
  ProcFs procfs_;
  ProcessTable& processes_;
  Assembler& assembler_;
};

}  // namespace looptrace

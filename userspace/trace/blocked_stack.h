// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "trace/processes.h"
#include "trace/raw.h"

namespace looptrace {

/// The user stack of a thread that is off CPU, walked from outside (process_vm_readv: pages that are swapped
/// out are read in).
struct BlockedStack {
  std::vector<uint64_t> user;
  InterpreterStack python;
  std::vector<lt_v8_frame> v8;
  std::vector<NamedFrame> javascript;  ///< what they are
  std::optional<lt_py_task> task;      ///< what they run for
  std::optional<TaskInfo::Place> task_created_at;
  uint32_t status = LT_UNWIND_OFF;  ///< enum lt_unwind_status

  void move_into(RawCapture& capture) &&;
};

/// Walks from the registers that `slot` had when its thread left the CPU. `live` is the slot that the kernel
/// writes: nothing is returned if its thread has run since `slot` was copied, so what is returned is exact.
/// In which interpreters the thread is is found out anew where what is known does not suit its stack.
std::optional<BlockedStack> walk_blocked(const TracedProcess& process, const lt_slot& slot, lt_slot& live);

/// The states of the thread that its slot knows.
ThreadStates states_of(const lt_slot& slot);

/// The thread's states, if they are others than those of its slot: they are stored there.
std::optional<ThreadStates> renew_states(Runtime& runtime, const NativeStack& native, lt_slot& live);

}  // namespace looptrace

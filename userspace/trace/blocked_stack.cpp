// SPDX-License-Identifier: Apache-2.0
#include "trace/blocked_stack.h"

#include "stacks/user_unwinder.h"

namespace looptrace {

void BlockedStack::move_into(RawCapture& capture) && {
  capture.user = std::move(user);
  capture.python = std::move(python.frames);
  capture.task = task;
  capture.task_created_at = std::move(task_created_at);
  capture.v8 = std::move(v8);
  capture.javascript = std::move(javascript);
  capture.head.unwind_status = status;
  capture.head.py_status = python.status;
}

std::optional<BlockedStack> walk_blocked(const TracedProcess& process, const lt_slot& slot,
                                         const lt_slot& live) {
  if (slot.running || !process.modules) return std::nullopt;
  BlockedStack stack;
  UnwoundStack walked = unwind(*process.modules, {slot.off_ip, slot.off_sp, slot.off_bp},
                               memory_reader(static_cast<pid_t>(process.tgid)), LT_MAX_USER);
  if (process.runtime) {
    for (const UnwoundStack::Pointers& pointers : walked.uncovered) {
      const auto frame = process.runtime->read_slots(pointers);
      if (frame && stack.v8.size() < LT_MAX_V8) stack.v8.push_back(*frame);
    }
    stack.javascript = process.runtime->name_frames({walked.addresses, stack.v8});
  }
  stack.user = std::move(walked.addresses);
  stack.status = walked.status;
  if (process.runtime && slot.py_tstate) {
    stack.python = process.runtime->walk(slot.py_tstate);
    stack.task = process.runtime->see_task(slot.py_tstate);
    if (stack.task) stack.task_created_at = process.runtime->task_created_at(*stack.task);
  }
  if (__atomic_load_n(&live.switches, __ATOMIC_ACQUIRE) != slot.switches) return std::nullopt;
  return stack;
}

}  // namespace looptrace

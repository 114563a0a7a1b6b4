// SPDX-License-Identifier: Apache-2.0
#include "trace/blocked_stack.h"

#include <algorithm>
#include <iterator>
#include <span>

#include "stacks/user_unwinder.h"
#include "trace/eval_frames.h"

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

ThreadStates states_of(const lt_slot& slot) {
  ThreadStates states;
  std::copy(std::begin(slot.py_states), std::end(slot.py_states), states.begin());
  return states;
}

std::optional<ThreadStates> renew_states(Runtime& runtime, const NativeStack& native, lt_slot& live) {
  const ThreadStates states = runtime.thread_states(static_cast<pid_t>(live.tid), native);
  if (states == states_of(live)) return std::nullopt;
  std::copy(states.begin(), states.end(), std::begin(live.py_states));
  return states;
}

namespace {

void walk_interpreter(const TracedProcess& process, const lt_slot& slot, lt_slot& live, BlockedStack& stack) {
  Runtime& runtime = *process.runtime;
  ThreadStates states = states_of(slot);
  if (!states[0]) states = renew_states(runtime, {}, live).value_or(states);
  stack.python = runtime.walk(states);
  end_at_greenlet(runtime, *process.modules, {states[0] != 0, stack.python.status, stack.python.frames},
                  slot.off_nr < 0, stack.user, stack.status);
  if (stack.status == LT_UNWIND_END && stack.python.status != LT_PY_FULL) {
    const auto match = [&](std::span<const lt_py_frame> frames) {
      return match_eval_frames(runtime, {stack.user, slot.off_nr < 0}, frames);
    };
    const auto suits = [&] { return match(stack.python.frames).agree() && stack.python.status == LT_PY_END; };
    if (!suits()) {
      if (const auto renewed = renew_states(runtime, {slot.off_sp, match({}).native}, live)) {
        states = *renewed;
        stack.python = runtime.walk(states);
      }
    }
    if (stack.python.status == LT_PY_END && !suits()) stack.python.status = LT_PY_MISMATCH;
  }
  stack.task = runtime.see_task(states);
  if (stack.task) stack.task_created_at = runtime.task_created_at(*stack.task);
}

}  // namespace

std::optional<BlockedStack> walk_blocked(const TracedProcess& process, const lt_slot& slot, lt_slot& live) {
  if (slot.running || !process.modules) return std::nullopt;
  BlockedStack stack;
  UnwoundStack walked = unwind(*process.modules, {slot.off_ip, slot.off_sp, slot.off_bp},
                               memory_reader(static_cast<pid_t>(process.tgid)), LT_MAX_USER);
  bool full = false;
  if (process.runtime) {
    for (const UnwoundStack::Pointers& pointers : walked.uncovered) {
      const auto frame = process.runtime->read_slots(pointers);
      if (!frame) continue;
      full = stack.v8.size() == LT_MAX_V8;
      if (full) break;
      stack.v8.push_back(*frame);
    }
    stack.javascript = process.runtime->name_frames({walked.addresses, stack.v8});
  }
  stack.user = std::move(walked.addresses);
  stack.status = walked.status;
  if (process.runtime) walk_interpreter(process, slot, live, stack);
  if (full) stack.python.status = LT_PY_FULL;
  if (__atomic_load_n(&live.switches, __ATOMIC_ACQUIRE) != slot.switches) return std::nullopt;
  return stack;
}

}  // namespace looptrace

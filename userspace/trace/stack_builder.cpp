// SPDX-License-Identifier: Apache-2.0
#include "trace/stack_builder.h"

#include <algorithm>
#include <string_view>

#include "trace/eval_frames.h"

namespace looptrace {

namespace {

bool starts_with(std::string_view text, std::string_view prefix) {
  return text.substr(0, prefix.size()) == prefix;
}

// The tick that took the sample, and the scheduler that switched away: how we came to know, not what it did.
bool is_our_own(std::string_view function) {
  for (const std::string_view prefix : {"bpf_",
                                        "__bpf",
                                        "trace_call_bpf",
                                        "perf_",
                                        "__perf",
                                        "__sysvec_",
                                        "sysvec_",
                                        "asm_sysvec_",
                                        "local_apic_",
                                        "__schedule",
                                        "schedule",
                                        "preempt_schedule",
                                        "__traceiter_",
                                        "__hrtimer",
                                        "hrtimer_interrupt",
                                        "irqentry_exit",
                                        "__cond_resched",
                                        "exit_to_user_mode",
                                        "tick_",
                                        "update_process_times"}) {
    if (starts_with(function, prefix)) return true;
  }
  return false;
}

}  // namespace

bool ended_in_made_code(const RawCapture& capture, const TracedProcess& process) {
  const uint32_t status = capture.head.unwind_status;
  if (status == LT_UNWIND_END || status == LT_UNWIND_FULL || capture.user.empty()) return false;
  const bool returns = capture.user.size() > 1 || capture.head.nr >= 0;
  return process.in_made_code(returns ? capture.user.back() - 1 : capture.user.back());
}

std::vector<std::string> StackBuilder::kernel_functions(const RawCapture& capture) {
  std::vector<Frame> frames;
  for (const uint64_t address : capture.kernel) symbolizer_.kernel(address, frames);
  // An interrupt's frames end where the interrupted code begins.
  size_t from = 0;
  if (capture.head.reason == LT_CAPTURE_SAMPLE) {
    for (size_t i = 0; i < frames.size(); ++i) {
      if (starts_with(frames[i].function, "asm_sysvec_") ||
          starts_with(frames[i].function, "asm_common_interrupt")) {
        from = i + 1;
      }
    }
  }
  std::vector<std::string> names;
  for (size_t i = from; i < frames.size(); ++i) {
    if (names.empty() && is_our_own(frames[i].function)) continue;
    names.push_back(frames[i].function);
  }
  return names;
}

void StackBuilder::build(const RawCapture& capture, TracedProcess& process, Stack& stack, bool& modules_stale,
                         Symbolizer::Detail detail) {
  for (const std::string& name : kernel_functions(capture)) {
    Frame frame;
    frame.kind = FrameKind::kernel;
    frame.function = name;
    frame.origin = FrameOrigin::runtime;
    stack.frames.push_back(std::move(frame));
  }

  Runtime* runtime = process.runtime.get();
  size_t next_python = 0;
  const auto take_python = [&] {  // the frames that one eval loop runs
    while (next_python < capture.python.size()) {
      const lt_py_frame& frame = capture.python[next_python++];
      if (!runtime->is_shim(frame)) stack.frames.push_back(runtime->resolve(frame));
      if (runtime->is_entry(frame)) return;
    }
  };
  size_t next_javascript = 0;
  const auto take_javascript = [&](size_t user) {  // the frames that lie in one native frame
    const size_t before = stack.frames.size();
    while (next_javascript < capture.javascript.size() && capture.javascript[next_javascript].user <= user) {
      const NamedFrame& named = capture.javascript[next_javascript++];
      if (named.user == user) stack.frames.push_back(*named.frame);
    }
    return stack.frames.size() > before;
  };
  const bool in_syscall = capture.head.nr >= 0;
  const uint32_t status = capture.head.unwind_status;
  // Where native eval frames are left over, they are the innermost: of an interpreter that is not known, or
  // of a function about to begin.
  size_t left_over = 0;
  if (runtime && process.modules && capture.head.py_status != LT_PY_FULL &&
      capture.head.py_status != LT_PY_FAULT) {
    const auto evals = match_eval_frames(*runtime, {capture.user, !in_syscall}, capture.python);
    left_over = evals.native > evals.begun ? evals.native - evals.begun : 0;
  }
  for (size_t i = 0; i < capture.user.size(); ++i) {
    const uint64_t address = capture.user[i];
    // Behind a `syscall` instruction the leaf is like a return address.
    const bool returns = i > 0 || in_syscall;
    if (runtime && next_python < capture.python.size() && runtime->is_eval(returns ? address - 1 : address)) {
      if (left_over) {
        --left_over;
      } else {
        take_python();
        continue;
      }
    }
    if (take_javascript(i)) continue;
    if (auto frames = runtime ? runtime->name_code(address, returns) : std::vector<Frame>();
        !frames.empty()) {
      std::move(frames.begin(), frames.end(), std::back_inserter(stack.frames));
      continue;
    }
    if (!process.modules) {
      stack.frames.emplace_back();
      stack.frames.back().offset = address;
      continue;
    }
    const Module* module = process.modules->find(returns ? address - 1 : address);
    if (!module || process.in_made_code(returns ? address - 1 : address)) modules_stale = true;
    const size_t before = stack.frames.size();
    symbolizer_.user(static_cast<pid_t>(process.tgid), *process.modules, address, returns, stack.frames,
                     detail);
    for (size_t f = before; runtime && f < stack.frames.size(); ++f) {
      if (runtime->is_runtime_code(stack.frames[f])) stack.frames[f].origin = FrameOrigin::runtime;
    }
  }
  stack.truncated = status != LT_UNWIND_END || capture.head.py_status != LT_PY_END;
  if (status == LT_UNWIND_NO_MODULE || ended_in_made_code(capture, process)) modules_stale = true;
  // A native walk that broke off early leaves interpreter frames over: they are known all the same.
  if (runtime) {
    while (next_python < capture.python.size()) take_python();
  }
}

}  // namespace looptrace

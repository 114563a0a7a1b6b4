// SPDX-License-Identifier: Apache-2.0
#include "trace/eval_frames.h"

#include <algorithm>

#include "stacks/elf_object.h"

namespace looptrace {

namespace {

// A greenlet has a piece of the native stack of its own, whose outermost function is of this module.
bool begins_greenlet(const ProcessModules& modules, uint64_t address) {
  const Module* module = modules.find(address);
  return module && module->object && module->object->name().starts_with("_greenlet.");
}

}  // namespace

EvalFrames match_eval_frames(const Runtime& runtime, const ProcessModules& modules,
                             std::span<const uint64_t> user, bool interrupted,
                             std::span<const lt_py_frame> frames) {
  const auto address = [&](size_t i) { return user[i] - (i > 0 || !interrupted); };
  const auto evals = [&](size_t end) {
    size_t n = 0;
    for (size_t i = 0; i < end; ++i) n += runtime.is_eval(address(i));
    return n;
  };
  EvalFrames found;
  found.native = evals(user.size());
  found.begun = static_cast<size_t>(std::count_if(
      frames.begin(), frames.end(), [&](const lt_py_frame& frame) { return runtime.is_entry(frame); }));
  if (found.native == found.begun) return found;
  for (size_t i = 0; i < user.size(); ++i) {
    if (!begins_greenlet(modules, address(i))) continue;
    found.native = evals(i);
    break;
  }
  found.entering = found.native == found.begun + 1 && interrupted && runtime.is_eval(address(0));
  return found;
}

}  // namespace looptrace

// SPDX-License-Identifier: Apache-2.0
#include "trace/eval_frames.h"

#include <algorithm>
#include <optional>

#include "stacks/elf_object.h"

namespace looptrace {

namespace {

uint64_t code_address(const NativeWalk& walk, size_t i) {
  return walk.addresses[i] - (i > 0 || !walk.interrupted);
}

size_t begun_by(const Runtime& runtime, std::span<const lt_py_frame> frames) {
  return static_cast<size_t>(std::count_if(
      frames.begin(), frames.end(), [&](const lt_py_frame& frame) { return runtime.is_entry(frame); }));
}

bool is_of_greenlet(const ProcessModules& modules, uint64_t address) {
  const Module* module = modules.find(address);
  return module && module->object && module->object->name().starts_with("_greenlet.");
}

// How many frames the stack of a running greenlet has; nothing if none runs.
std::optional<size_t> greenlet_depth(const Runtime& runtime, const ProcessModules& modules,
                                     const NativeWalk& walk, std::span<const lt_py_frame> frames) {
  const size_t begun = begun_by(runtime, frames);  // 0: it runs a function of C
  const size_t entering = walk.interrupted && runtime.is_eval(walk.addresses[0]);
  size_t evals = 0;
  for (size_t i = 0; i < walk.addresses.size(); ++i) {
    const uint64_t address = code_address(walk, i);
    evals += runtime.is_eval(address);
    if (evals < begun || !is_of_greenlet(modules, address)) continue;
    return evals <= begun + entering ? std::optional(i + 1) : std::nullopt;
  }
  return std::nullopt;
}

}  // namespace

EvalFrames match_eval_frames(const Runtime& runtime, const NativeWalk& walk,
                             std::span<const lt_py_frame> frames) {
  EvalFrames found;
  for (size_t i = 0; i < walk.addresses.size(); ++i) found.native += runtime.is_eval(code_address(walk, i));
  found.begun = begun_by(runtime, frames);
  found.entering = found.native == found.begun + 1 && walk.interrupted && runtime.is_eval(walk.addresses[0]);
  return found;
}

void end_at_greenlet(const Runtime& runtime, const ProcessModules& modules,
                     const InterpreterWalk& interpreter, bool interrupted, std::vector<uint64_t>& addresses,
                     uint32_t& unwind_status) {
  if (!interpreter.has_state || interpreter.status != LT_PY_END) return;
  const auto depth = greenlet_depth(runtime, modules, {addresses, interrupted}, interpreter.frames);
  if (!depth) return;
  addresses.resize(*depth);
  unwind_status = LT_UNWIND_END;
}

}  // namespace looptrace

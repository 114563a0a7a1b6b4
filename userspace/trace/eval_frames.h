// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "runtimes/runtime.h"
#include "stacks/module.h"

namespace looptrace {

/// The native stack of a capture, as far as the interpreter's frames are set against it.
struct NativeWalk {
  std::span<const uint64_t> addresses;  ///< leaf first
  bool interrupted = false;             ///< the leaf is where the thread was interrupted
};

/// The interpreter's frames of a whole stack, set against the native frames that run them: each of its eval
/// loops runs one or more.
struct EvalFrames {
  size_t native = 0;      ///< run the interpreter's eval loop
  size_t begun = 0;       ///< of the interpreter's frames, the outermost of one eval loop
  bool entering = false;  ///< the innermost eval loop has no frame yet, or no longer

  bool agree() const { return native == begun + entering; }
};

EvalFrames match_eval_frames(const Runtime& runtime, const NativeWalk& walk,
                             std::span<const lt_py_frame> frames);

/// What was found of the interpreter's side of a stack.
struct InterpreterWalk {
  bool has_state = false;  ///< the thread's state is known: without frames it runs no Python now
  int32_t status = 0;      ///< enum lt_py_status
  std::span<const lt_py_frame> frames;
};

/// Ends a walk where the greenlet that runs began, if one runs. greenlet copies each one's part of the stack
/// in and out of the same place; the outermost that is its own is the function of greenlet's that began it
/// and never returns. What a walk finds below was left there by others. Where not all frames that the thread
/// has now are known, the walk stays as it is.
void end_at_greenlet(const Runtime& runtime, const ProcessModules& modules,
                     const InterpreterWalk& interpreter, bool interrupted, std::vector<uint64_t>& addresses,
                     uint32_t& unwind_status);

}  // namespace looptrace

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "runtimes/runtime.h"
#include "stacks/module.h"

namespace looptrace {

/// The interpreter's frames of a whole stack, set against the native frames that run them: each of its eval
/// loops runs one or more. What lies below a greenlet's first frame is another greenlet's and not counted.
struct EvalFrames {
  size_t native = 0;      ///< run the interpreter's eval loop
  size_t begun = 0;       ///< of the interpreter's frames, the outermost of one eval loop
  bool entering = false;  ///< the innermost eval loop has no frame yet, or no longer

  bool agree() const { return native == begun + entering; }
};

/// `user` is the native stack, leaf first; `interrupted`: its leaf is where the thread was interrupted.
EvalFrames match_eval_frames(const Runtime& runtime, const ProcessModules& modules,
                             std::span<const uint64_t> user, bool interrupted,
                             std::span<const lt_py_frame> frames);

}  // namespace looptrace

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>

#include "runtimes/runtime.h"

namespace looptrace {

/// CPython 3.8 to 3.15, x86-64. Null where the process runs none; `warning` tells of one that is not known.
///
/// How frames are found (3.11+; before, frame objects hang from the thread state and each has an eval frame
/// of its own): the thread state leads to the innermost _PyInterpreterFrame, frames are linked by `previous`.
/// Python-to-Python calls share one native eval frame; where a new one begins the last frame is marked:
/// 3.11 `is_entry`, 3.12+ by a shim frame of the eval loop's own (owner 3), which has no code.
/// A thread that calls into another interpreter has a state in each: see thread_states.h.
///
/// Limits. Free-threaded builds of 3.14 and later: other threads than the main one run copies of the
/// bytecode, and a frame in a copy has the line of its definition or none. Py_TRACE_REFS builds are not
/// supported. Code that the JIT compiled is seen as the interpreter would be.
std::unique_ptr<Runtime> detect_cpython(pid_t pid, const ProcessModules& modules,
                                        std::optional<std::string>& warning);

}  // namespace looptrace

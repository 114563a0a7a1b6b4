// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>

#include "runtimes/runtime.h"

namespace looptrace {

/// Node.js 18, 20, 22 and 24 (V8 10.2, 11.3, 12.4, 13.6), x86-64. Null where the process runs none; `warning`
/// tells of one that is not known.
///
/// How frames are found: code that V8 made has a frame pointer and no unwind table, so the native walk leaves
/// it by the frame pointer (rows of kind GAP). Below the frame pointer lie the context (or the frame's type,
/// where it runs no JavaScript), the JSFunction, and in interpreted and baseline frames the BytecodeArray and
/// the offset in it. The JSFunction leads to its SharedFunctionInfo, that to its ScopeInfo (name, place) and
/// Script (file, lines).
///
/// Limits. A frame of optimized code has the line of its function's definition, and what was inlined into it
/// is not seen. No pointer compression (Electron).
std::unique_ptr<Runtime> detect_v8(pid_t pid, const ProcessModules& modules,
                                   std::optional<std::string>& warning);

}  // namespace looptrace

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>

#include "runtimes/runtime.h"

namespace looptrace {

/// Node.js 18, 20, 22, 24 and 26 (V8 10.2, 11.3, 12.4, 13.6, 14.6), x86-64. Null where the process runs none;
/// `warning` tells of one that is not known.
///
/// How frames are found: code that V8 made has a frame pointer and no unwind table, so the native walk leaves
/// it by the frame pointer (rows of kind GAP). Below the frame pointer lie the context (or the frame's type,
/// where it runs no JavaScript), the JSFunction, and in interpreted and baseline frames the BytecodeArray and
/// the offset in it. The JSFunction leads to its SharedFunctionInfo, that to its ScopeInfo (name, place) and
/// Script (file, lines). In compiled code the address tells the bytecode (baseline), or the call and what it
/// was inlined into (optimized).
///
/// Limits. Where optimized code itself was interrupted, not in what it calls, only the function that it was
/// made for is known, and its line is the definition's. No pointer compression (Electron).
std::unique_ptr<Runtime> detect_v8(pid_t pid, const ProcessModules& modules,
                                   std::optional<std::string>& warning);

}  // namespace looptrace

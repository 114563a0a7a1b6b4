// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>

#include "runtimes/runtime.h"

namespace looptrace {

/// OpenJDK's HotSpot, 8 to 27, x86-64: by the tables that libjvm.so exports for debuggers. Null where the
/// process runs none; `warning` tells of one whose tables lack what is needed, or of a version not known.
///
/// Compiled Java has neither unwind tables nor frame pointers. Its frames have a fixed size, which the code
/// cache knows: that gives the rows by which stacks reach the thread's start. What the compiler noted for
/// deoptimization gives the line of each call, and of those that were inlined.
///
/// Interpreted frames keep their Method* and their place in its bytecodes in slots below the frame pointer.
///
/// Limits. A walk ends at code compiled since the last look: at most a second ago, while stacks turn out to
/// be cut. A method is named when its stall is over: by what is then at that address. Between calls, nothing
/// tells which line compiled code is at, nor whether that was inlined: a leaf there has the line that its
/// compiled method begins at.
std::unique_ptr<Runtime> detect_hotspot(pid_t pid, const ProcessModules& modules,
                                        std::optional<std::string>& warning);

}  // namespace looptrace

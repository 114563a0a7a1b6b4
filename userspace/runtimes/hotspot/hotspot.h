// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>

#include "runtimes/runtime.h"

namespace looptrace {

/// OpenJDK's HotSpot, 11 to 22, x86-64: by the tables that libjvm.so exports for debuggers. Null where the
/// process runs none; `warning` tells of one whose tables lack what is needed.
///
/// Compiled Java has neither unwind tables nor frame pointers. Its frames have a fixed size, which the code
/// cache knows: that gives the rows by which stacks reach the thread's start, and the names of compiled
/// methods.
///
/// Interpreted frames keep their Method* and their place in its bytecodes in slots below the frame pointer.
///
/// Limits. A walk ends at code compiled since the last look: at most a second ago, while stacks turn out to
/// be cut. A method is named when its stall is over: by what is then at that address. Methods that were
/// inlined are not seen. Lines are told of interpreted frames only, up to JDK 19.
std::unique_ptr<Runtime> detect_hotspot(pid_t pid, const ProcessModules& modules,
                                        std::optional<std::string>& warning);

}  // namespace looptrace

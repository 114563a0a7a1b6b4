// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "runtimes/runtime.h"

namespace looptrace {

/// .NET's CoreCLR. Its code is named by perf maps (DOTNET_PerfMapEnabled=1); this tells what its own
/// functions mean: a sleep and a lock both wait on a condition variable. Null where the process runs none.
///
/// Limits. Thread.Sleep() is known by a symbol of libcoreclr.so, or by its name in the perf map; where both
/// are lacking (stripped, and Thread.Sleep() compiled ahead of time), a sleep looks like a lock.
std::unique_ptr<Runtime> detect_coreclr(const ProcessModules& modules);

}  // namespace looptrace

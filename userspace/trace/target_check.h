// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <vector>

#include "record/other_records.h"
#include "targets/procfs.h"

namespace looptrace {

/// What can be said of a process without tracing it: its runtime, its mappings and their unwind rows, and how
/// far the stacks of its blocked threads go when they are walked from outside. Nothing is stopped: a thread's
/// ip and sp come from /proc, its memory is read, and a thread that moved meanwhile is not counted. Names
/// begin with "pid N "; none where there is no such process.
std::vector<Capability> check_target(const ProcFs& procfs, pid_t pid);

}  // namespace looptrace

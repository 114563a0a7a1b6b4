// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace looptrace {

/// Lets the calling thread run before others where it may (root may): for the threads between a loop that
/// becomes suspect and its probe. What comes late leaves a stall unconfirmed, and all that they do takes
/// microseconds.
inline void hurry_this_thread() { setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), -15); }

}  // namespace looptrace

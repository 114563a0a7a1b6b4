// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace looptrace {

// What this process itself uses.

uint64_t own_cpu_ns();          ///< of all its threads, user and kernel
uint64_t own_resident_bytes();  ///< 0 where /proc cannot be read

}  // namespace looptrace

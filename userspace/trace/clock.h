// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <time.h>

#include <cstdint>

namespace looptrace {

inline uint64_t clock_ns(clockid_t clock) {
  timespec t;
  clock_gettime(clock, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(t.tv_nsec);
}
inline uint64_t monotonic_ns() { return clock_ns(CLOCK_MONOTONIC); }

/// A CLOCK_MONOTONIC time (the kernel's records) as CLOCK_REALTIME, by the offset of now.
inline uint64_t to_realtime_ns(uint64_t monotonic) {
  return clock_ns(CLOCK_REALTIME) - (monotonic_ns() - monotonic);
}

}  // namespace looptrace

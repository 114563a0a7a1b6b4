// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "targets/procfs.h"

namespace looptrace {

/// Where a thread that is off CPU is, as /proc/PID/task/TID/syscall tells it. It does not tell rbp.
struct OffCpuPlace {
  int nr = -1;                     ///< the system call, -1 = none (a page fault, preempted)
  std::array<uint64_t, 6> args{};  ///< of the call
  uint64_t sp = 0, ip = 0;

  bool operator==(const OffCpuPlace&) const = default;
};

/// Nothing while it runs, and where it is gone.
std::optional<OffCpuPlace> off_cpu_place(const ProcFs& procfs, pid_t pid, pid_t tid);

/// "232 0x4 0x7f.. 0x.. 0x.. 0x.. 0x.. SP IP", "-1 SP IP" or "running".
std::optional<OffCpuPlace> parse_off_cpu_place(std::string_view text);

}  // namespace looptrace

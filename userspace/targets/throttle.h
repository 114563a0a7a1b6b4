// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "targets/cgroup.h"
#include "targets/procfs.h"

namespace looptrace {

/// How often and how long CPU quotas held a cgroup back. Times are sums over CPUs: they can pass wall time.
struct Throttle {
  uint64_t count = 0;
  uint64_t ns = 0;

  Throttle& operator+=(const Throttle& o) {
    count += o.count;
    ns += o.ns;
    return *this;
  }
};

/// Reads a cpu.stat file's text: throttled_usec (v2) or throttled_time in ns (v1). std::nullopt: no quota
/// there.
std::optional<Throttle> parse_cpu_stat(std::string_view text);

/// The cpu.stat files that govern a thread: of its own cgroup and of each one above, since a quota
/// anywhere on the way holds it back.
class ThrottleSource {
 public:
  /// Empty where the thread is gone or no cpu controller is mounted.
  static ThrottleSource of_thread(const ProcFs& procfs, const CgroupMounts& mounts, pid_t tid);

  bool empty() const { return files_.empty(); }
  const std::vector<std::string>& files() const { return files_; }
  /// The sum over these files now; compare two readings. std::nullopt: no quota governs the thread.
  std::optional<Throttle> read() const;

 private:
  std::vector<std::string> files_;  // leaf first
};

}  // namespace looptrace

// SPDX-License-Identifier: Apache-2.0
#include "targets/scan.h"

namespace looptrace {

std::vector<Target> scan(const ProcFs& procfs, const Matcher& matcher) {
  std::vector<Target> targets;
  const unsigned parts = matcher.parts();
  for (const pid_t pid : matcher.is_fixed() ? matcher.fixed_pids() : procfs.pids()) {
    auto facts = read_process(procfs, pid, parts);
    if (!facts) continue;
    if (Match match = matcher.match(*facts)) targets.push_back({std::move(*facts), std::move(match)});
  }
  return targets;
}

}  // namespace looptrace

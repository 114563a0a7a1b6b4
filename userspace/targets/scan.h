// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "targets/procfs.h"
#include "targets/selector.h"

namespace looptrace {

/// A process that was asked for, with the facts that the matcher looked at (Matcher::parts()).
struct Target {
  ProcessFacts facts;
  Match match;
};

/// The targets that exist now. Reads no more of each process than the selectors need: 5 ms for 1,000
/// processes by name, 6 ms by executable, 10 ms by cgroup or container; more for processes of many threads.
std::vector<Target> scan(const ProcFs& procfs, const Matcher& matcher);

}  // namespace looptrace

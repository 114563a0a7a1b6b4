// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "agent/config.h"
#include "base/result.h"

namespace looptrace {

/// How the trace with one configuration ended.
struct RunOutcome {
  Result<void> ended;
  bool worked = false;              ///< it came as far as to attach
  AgentConfig config;               ///< as it was at last: sampling and budget change while tracing
  std::optional<AgentConfig> next;  ///< to go on with; nothing if the agent was told to end
};

/// Traces with a configuration. `trouble` is why the one after it was given up; empty if none was.
using RunConfig = std::function<RunOutcome(AgentConfig config, const std::string& trouble)>;

/// Goes from one configuration to the next. One that does not work makes way for the one before, which is
/// told why; without one before, and where one that worked fails, that is the end.
Result<void> run_through_reloads(AgentConfig first, const RunConfig& run);

}  // namespace looptrace

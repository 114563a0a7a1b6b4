// SPDX-License-Identifier: Apache-2.0
#include "agent/reloads.h"

#include "sinks/line_writer.h"

namespace looptrace {

Result<void> run_through_reloads(AgentConfig first, const RunConfig& run) {
  std::optional<AgentConfig> present = std::move(first), before;
  std::string trouble;
  while (present) {
    RunOutcome outcome = run(std::move(*present), std::exchange(trouble, ""));
    if (!outcome.ended && is_reader_gone(outcome.ended.error())) return {};
    if (!outcome.ended && !outcome.worked && before) {
      trouble = outcome.ended.error().message();
      present = std::exchange(before, std::nullopt);
      continue;
    }
    if (!outcome.ended) return outcome.ended;
    before = std::move(outcome.config);
    present = std::move(outcome.next);
  }
  return {};
}

}  // namespace looptrace

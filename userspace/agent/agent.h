// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "base/result.h"

namespace looptrace {

/// `looptrace agent`: runs until SIGINT or SIGTERM. SIGHUP reopens the output and reads the configuration
/// anew: a wrong one is told of and changes nothing; sampling and budget change with the next window; for
/// anything else the present window is brought to its end, and the trace begins anew.
Result<void> run_agent(const std::string& config_path, const std::string& version);

/// `looptrace agent --check-config`.
Result<void> check_agent_config(const std::string& config_path);

}  // namespace looptrace

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cli/options.h"

namespace looptrace {

// Each runs one command to its end: data to standard output (or -o), everything else to standard error.
Result<void> run_trace(const Options& options, const std::string& version);
Result<void> run_list(const Options& options, const std::string& version);
Result<void> run_check(const Options& options, bool json);

}  // namespace looptrace

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "base/fd.h"
#include "cli/options.h"
#include "trace/tracer.h"

namespace looptrace {

// What the commands that trace do first.

/// SIGINT, SIGTERM and SIGHUP as a descriptor; SIGPIPE becomes EPIPE.
Result<UniqueFd> take_signals();

/// What this kernel and these privileges allow. Fault::unsupported if it is too little.
Result<std::vector<Capability>> usable_features(HookMode hook);

TraceConfig to_trace_config(const Options& options, const std::string& version,
                            std::vector<Capability> features);

}  // namespace looptrace

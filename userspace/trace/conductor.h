// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "base/result.h"

namespace looptrace {

class Tracer;

/// Decides when the hooks are attached, and what the trace may cost. Called in the worker between records; it
/// acts through the Tracer's members that are marked for the worker.
class Conductor {
 public:
  virtual ~Conductor() = default;
  /// Called at least once a second, and before the time (CLOCK_MONOTONIC) that it returned last.
  virtual Result<uint64_t> step(Tracer& tracer, uint64_t now_ns) = 0;
  /// The trace ends: called once, after the last step.
  virtual Result<void> end(Tracer& tracer) = 0;
};

}  // namespace looptrace

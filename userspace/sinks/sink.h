// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/result.h"
#include "record/other_records.h"
#include "record/stall.h"
#include "record/window.h"

namespace looptrace {

/// Where records go. One thread calls it. A failure ends the trace, but for Closed.
class Sink {
 public:
  virtual ~Sink() = default;
  virtual Result<void> start(const StartRecord& record) = 0;
  virtual Result<void> stall(const Stall& record) = 0;
  virtual Result<void> loop(const LoopRecord& record) = 0;
  virtual Result<void> window(const WindowRecord& record) = 0;  ///< of the agent only
  virtual Result<void> warning(const WarningRecord& record) = 0;
  virtual Result<void> summary(const SummaryRecord& record) = 0;
};

}  // namespace looptrace

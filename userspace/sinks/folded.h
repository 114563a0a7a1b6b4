// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "sinks/line_writer.h"
#include "sinks/sink.h"

namespace looptrace {

/// Folded stacks for flame graphs: "process;thread;outer;...;leaf NANOSECONDS", kernel frames with "_k".
/// One line per stack of a closed stall, the stall's lines in one write; all other records have no place
/// in this format and are left out. The weight counts as many times as the record stands for stalls.
class FoldedSink : public Sink {
 public:
  /// `writer` outlives the sink.
  explicit FoldedSink(LineWriter& writer) : writer_(writer) {}

  Result<void> start(const StartRecord&) override { return {}; }
  Result<void> stall(const Stall& record) override;
  Result<void> loop(const LoopRecord&) override { return {}; }
  Result<void> window(const WindowRecord&) override { return {}; }
  Result<void> warning(const WarningRecord&) override { return {}; }
  Result<void> summary(const SummaryRecord&) override { return {}; }

 private:
  LineWriter& writer_;
  std::string lines_;
};

}  // namespace looptrace

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "base/host.h"
#include "sinks/line_writer.h"
#include "sinks/sink.h"
#include "sinks/stall_json.h"

namespace looptrace {

struct JsonlOptions {
  size_t max_line = 8000;  ///< bytes, line feed included; from kLeastMaxLine on
  HostInfo host;
};

/// JSON Lines: a record a line, a line a write. What tells of the trace itself (its start, windows, warnings,
/// its end) comes first where there is no room for all.
class JsonlSink : public Sink {
 public:
  /// `writer` outlives the sink.
  JsonlSink(LineOutput& writer, JsonlOptions options) : writer_(writer), options_(std::move(options)) {}

  Result<void> start(const StartRecord& record) override;
  Result<void> stall(const Stall& record) override;
  Result<void> loop(const LoopRecord& record) override;
  Result<void> window(const WindowRecord& record) override;
  Result<void> warning(const WarningRecord& record) override;
  Result<void> summary(const SummaryRecord& record) override;

 private:
  LineOutput& writer_;
  JsonlOptions options_;
  std::string line_;  // kept for its memory
};

}  // namespace looptrace

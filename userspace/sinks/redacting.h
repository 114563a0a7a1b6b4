// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "record/redact.h"
#include "sinks/sink.h"

namespace looptrace {

/// Hands redacted records on to another sink, which outlives it.
class RedactingSink : public Sink {
 public:
  RedactingSink(Sink& next, RedactRules rules) : next_(next), redactor_(rules) {}

  Result<void> start(const StartRecord& record) override { return next_.start(redactor_.apply(record)); }
  Result<void> stall(const Stall& record) override { return next_.stall(redactor_.apply(record)); }
  Result<void> loop(const LoopRecord& record) override { return next_.loop(redactor_.apply(record)); }
  Result<void> window(const WindowRecord& record) override { return next_.window(record); }
  Result<void> warning(const WarningRecord& record) override {
    return next_.warning(redactor_.apply(record));
  }
  Result<void> summary(const SummaryRecord& record) override { return next_.summary(record); }

 private:
  Sink& next_;
  Redactor redactor_;
};

}  // namespace looptrace

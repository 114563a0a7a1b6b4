// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "sinks/metrics/metrics.h"

namespace looptrace {

/// Replaces `path` by the metrics in text format, for node_exporter's textfile collector: readers see the old
/// file or the new one, never a part. Readable by all (0644): the collector runs as another user.
Result<void> write_textfile(const std::string& path, const std::string& text);

/// Writes that file at the start, at each interval and at the end.
class TextfileSink : public SideSink {
 public:
  /// `metrics` outlives it, and is called before it.
  TextfileSink(const Metrics& metrics, std::string path) : metrics_(metrics), path_(std::move(path)) {}

  const char* name() const override { return "textfile"; }
  Result<void> start(const StartRecord&) override { return write(); }
  Result<void> stall(const Stall&) override { return {}; }
  Result<void> loop(const LoopRecord&) override { return {}; }
  Result<void> window(const WindowRecord&) override { return {}; }
  Result<void> warning(const WarningRecord&) override { return {}; }
  Result<void> summary(const SummaryRecord&) override { return write(); }

 private:
  Result<void> write() const;

  const Metrics& metrics_;
  const std::string path_;
};

}  // namespace looptrace

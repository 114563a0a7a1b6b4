// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "base/host.h"
#include "sinks/otlp/exporter.h"
#include "sinks/tee.h"

namespace looptrace {

/// Every record as a log record of OTLP, through an exporter of its own.
class OtlpSink : public SideSink, public Lossy {
 public:
  OtlpSink(std::unique_ptr<OtlpExporter> exporter, HostInfo host)
      : exporter_(std::move(exporter)), host_(std::move(host)) {}

  const char* name() const override { return "otlp"; }
  Result<void> start(const StartRecord& record) override { return push(otlp_start(record, host_)); }
  Result<void> stall(const Stall& record) override { return push(otlp_stall(record, host_)); }
  Result<void> loop(const LoopRecord& record) override { return push(otlp_loop(record, host_)); }
  Result<void> window(const WindowRecord& record) override { return push(otlp_window(record, host_)); }
  Result<void> warning(const WarningRecord& record) override { return push(otlp_warning(record, host_)); }
  Result<void> summary(const SummaryRecord& record) override { return push(otlp_summary(record, host_)); }
  std::map<std::string, uint64_t> dropped() const override { return exporter_->dropped(); }
  void finish() override { exporter_->finish(); }

 private:
  // Fails while the collector does: told once, until it is back.
  Result<void> push(OtlpRecord record) {
    exporter_->push(std::move(record));
    return exporter_->state();
  }

  const std::unique_ptr<OtlpExporter> exporter_;
  const HostInfo host_;
};

}  // namespace looptrace

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>

#include "base/host.h"
#include "record/other_records.h"
#include "record/stall.h"
#include "record/window.h"

namespace looptrace {

/// A record as OTLP's logs have it (JSON encoding: 64-bit integers are strings), in the two parts that travel
/// apart: records of one resource share it.
struct OtlpRecord {
  std::string resource;    ///< its attributes: a JSON array
  std::string log_record;  ///< a JSON object

  size_t bytes() const { return resource.size() + log_record.size(); }
};

// Who and where is the resource, by OpenTelemetry's names (host.name, service.name, process.pid,
// container.id, k8s.pod.name); so are the culprit (code.function.name, code.file.path, code.line.number), its
// stack (code.stacktrace) and the heaviest wait's peer (network.peer.address). All else is looptrace.*, as in
// the JSON record: looptrace.cause.kind. thread.id is the operating system's. The record's name is the event
// name.

OtlpRecord otlp_stall(const Stall& record, const HostInfo& host);
OtlpRecord otlp_loop(const LoopRecord& record, const HostInfo& host);
OtlpRecord otlp_window(const WindowRecord& record, const HostInfo& host);
OtlpRecord otlp_start(const StartRecord& record, const HostInfo& host);
OtlpRecord otlp_warning(const WarningRecord& record, const HostInfo& host);
OtlpRecord otlp_summary(const SummaryRecord& record, const HostInfo& host);

/// An ExportLogsServiceRequest of these.
std::string otlp_request(std::span<const OtlpRecord> records, const std::string& version);

}  // namespace looptrace

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "record/other_records.h"
#include "record/stall.h"

namespace looptrace {

/// CLOCK_REALTIME nanoseconds as "2026-11-23T09:00:00.123456789Z" (RFC 3339, UTC).
std::string format_time(uint64_t realtime_ns);

/// "850 us", "205 ms", "1.20 s", "2 min 3 s": three digits, cut and not rounded; whole units have no zeros.
std::string format_duration(uint64_t ns);

/// "run_query (app.py:7)", "handle (server+0x11f8a0)"; the base names of paths only.
std::string format_frame(const Frame& frame);

enum class Severity { info, warn, error };
const char* severity_name(Severity severity);

/// error from ten thresholds or one second on, warn from two thresholds on, else info.
Severity severity_of(const Stall& stall);

/// "server[101] loop stalled 205 ms: network wait in poll on 127.0.0.1:5432, at run_query (app.py:7)"
std::string stall_message(const Stall& stall);

/// "41 stalls on 3 loops in 30 s; dropped 2 (capture_budget)": the line that ends a run.
std::string summary_message(const SummaryRecord& summary);

}  // namespace looptrace

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>

#include "base/host.h"
#include "record/other_records.h"

namespace looptrace {

// Each replaces `line` by a record and its line feed, at most `max_line` bytes (from kLeastMaxLine on).

void write_start(std::string& line, const StartRecord& record, const HostInfo& host, size_t max_line);
void write_loop_record(std::string& line, const LoopRecord& record, const HostInfo& host, size_t max_line);
void write_warning(std::string& line, const WarningRecord& record, const HostInfo& host, size_t max_line);
void write_summary(std::string& line, const SummaryRecord& record, const HostInfo& host, size_t max_line);

/// looptrace.loop_info/1: a line of `looptrace list`.
void write_loop_info(std::string& line, const LoopListing& listing, const HostInfo& host, size_t max_line);

}  // namespace looptrace

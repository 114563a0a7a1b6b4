// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>

#include "base/host.h"
#include "record/window.h"

namespace looptrace {

/// Replaces `line` by the looptrace.window/1 record and its line feed, at most `max_line` bytes (from
/// kLeastMaxLine on). What does not fit goes in this order: capped fingerprints, strata, reasons of drops.
void write_window(std::string& line, const WindowRecord& record, const HostInfo& host, size_t max_line);

}  // namespace looptrace

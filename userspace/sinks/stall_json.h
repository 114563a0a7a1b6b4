// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>

#include "base/host.h"
#include "record/stall.h"

namespace looptrace {

/// No line of JSON is allowed to be shorter than this: what is left of a record then takes as much.
constexpr size_t kLeastMaxLine = 1024;

/// Replaces `line` by the looptrace.stall/1 record and its line feed, at most `max_line` bytes (from
/// kLeastMaxLine on). What does not fit goes in this order: stacks but for the culprit's and the heaviest,
/// frames in the middle of a stack, the ends of long texts, waits beyond three, the command line, the
/// message, then whatever else is not required.
void write_stall(std::string& line, const Stall& stall, const HostInfo& host, size_t max_line);

}  // namespace looptrace

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>

#include "record/other_records.h"
#include "sinks/terminal_text.h"

namespace looptrace {

/// A line per check, each that failed followed by its mend, and a closing line that says whether it will do.
std::string render_check(std::span<const Capability> capabilities, const Terminal& terminal);

/// {"schema":"looptrace.check/1","features":{...}} and a line feed; `features` as in looptrace.start/1.
std::string check_json(std::span<const Capability> capabilities);

}  // namespace looptrace

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>

#include "record/other_records.h"
#include "sinks/other_json.h"
#include "sinks/terminal_text.h"

namespace looptrace {

/// What `looptrace list` prints on a terminal: a head and a row per loop. For a pipe: write_loop_info().
std::string render_listing(std::span<const LoopListing> loops, const Terminal& terminal);

}  // namespace looptrace

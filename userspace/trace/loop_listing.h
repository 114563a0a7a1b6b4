// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "bpf/engine.h"
#include "record/other_records.h"
#include "trace/assembler.h"
#include "trace/processes.h"

namespace looptrace {

// What `list` tells after `elapsed_ns` of watching.

/// The threads that are loops, by process and thread.
std::vector<LoopListing> list_loops(std::span<const LoopState> loops, Engine& engine, ProcessTable& processes,
                                    uint64_t elapsed_ns);
/// Threads that polled and were not judged loops, a sentence each with the reason.
std::vector<std::string> list_others(std::span<const LoopState> loops, Engine& engine);

}  // namespace looptrace

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>

#include "record/stall.h"

namespace looptrace {

/// Where in Stall::stacks the frame to change is.
struct CulpritPlace {
  size_t stack = 0;
  size_t frame = 0;
};

/// The part of the time that a cause explains: only stacks of that part can hold its culprit.
StackState part_of(Cause cause);

/// Each stack names the innermost frame of the application's own code; failing that the innermost named
/// frame; kernel frames never. The function that the most time speaks for is the culprit: a short stall on
/// the CPU has a few samples, none like the other. Its place is on the heaviest stack that names it. Stacks
/// are those of the part that stall.cause names, those of waits with that cause first. Needs cause, waits,
/// stacks.
std::optional<CulpritPlace> choose_culprit(const Stall& stall);

}  // namespace looptrace

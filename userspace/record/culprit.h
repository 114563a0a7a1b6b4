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

/// The innermost frame of the application's own code on the heaviest stack; failing that the innermost
/// named frame; kernel frames never. Stacks are those of the part that stall.cause names, those of waits
/// with that cause first. A stack with no frame to name passes on to the next. Needs cause, waits, stacks.
std::optional<CulpritPlace> choose_culprit(const Stall& stall);

}  // namespace looptrace

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "record/culprit.h"
#include "record/stall.h"

namespace looptrace {

/// What makes two stalls the same finding: 16 hex digits over the runtime's family ("cpython"), the cause,
/// and (build-id or file's base name, function) of each frame from the culprit outward. What lies inside
/// the culprit varies from sample to sample, so it is left out; so are inlined frames (not every host has
/// the debug data), kernel frames, and the depth of a recursion. Equal across hosts, restarts and ASLR.
std::string fingerprint(const Stall& stall, const std::optional<CulpritPlace>& culprit);

}  // namespace looptrace
